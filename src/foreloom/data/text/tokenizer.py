"""The tokenizer of a text: transformers', with what a corpus needs of it: an end of sequence, a fingerprint, chats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

BYTES = "bytes"
"""The name of the tokenizer that needs no file."""
END_OF_TEXT = "<|endoftext|>"
ANSWERING = "assistant"
"""The role whose words a chat model learns."""


class Encoded(NamedTuple):
    """One document as tokens, the end-of-sequence token last."""

    token_T: list[int]
    is_learned_T: list[bool] | None
    """Which tokens count in the loss; None: all."""
    num_bytes: int
    """Of the text that those tokens stand for, in UTF-8."""


class TextTokenizer:
    """A tokenizer that ends documents. ValueError where it has no end-of-sequence token."""

    def __init__(self, hf: Any, name: str) -> None:
        self.hf = hf
        """transformers' own."""
        self.name = name
        if hf.eos_token_id is None:
            raise ValueError(
                f"the tokenizer {name} has no end-of-sequence token, which ends every document; set eos_token in its "
                "tokenizer_config.json."
            )
        self.eos_id: int = hf.eos_token_id
        if hf.pad_token_id is None:
            # Labels are masked by place, so an end of sequence that is text is still learned.
            hf.pad_token = hf.eos_token
        self.pad_id = hf.convert_tokens_to_ids(hf.pad_token)
        self.vocabulary_size = len(hf)
        inner = hf.backend_tokenizer.to_str() if hf.is_fast else repr(sorted(hf.get_vocab().items()))
        parts = (type(hf).__name__, inner, hf.special_tokens_map, hf.chat_template)
        self.fingerprint = blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def encode_texts(self, texts: Sequence[str]) -> list[Encoded]:
        """Documents as the tokenizer begins them (with its beginning-of-sequence token, if it has one)."""
        found = self.hf(list(texts), add_special_tokens=True, return_attention_mask=False, verbose=False)["input_ids"]
        return [
            Encoded(self._ended(list(tokens)), None, len(text.encode()))
            for tokens, text in zip(found, texts, strict=True)
        ]

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], *, learns_all: bool) -> Encoded | None:
        """A conversation by the tokenizer's template; None where nobody answers and only answers are learned.

        What belongs to an answer is found by rendering the conversation up to it and through it: its text, and what the
        template ends a turn with.
        """
        if not self.hf.chat_template:
            raise ValueError(
                f"the tokenizer {self.name} has no chat template; use one of an instruction-tuned "
                "model, or put a chat_template.jinja into a copy of its folder and name that as data.tokenizer."
            )
        if not learns_all and not any(one["role"] == ANSWERING for one in messages):
            return None
        text = self._render(messages)
        spans = [(0, len(text))] if learns_all else list(self._answers(messages, text))
        found = self.hf(text, add_special_tokens=False, return_offsets_mapping=not learns_all, verbose=False)
        tokens = self._ended(list(found["input_ids"]))
        num_bytes = sum(len(text[begin:end].encode()) for begin, end in spans)
        if learns_all:
            return Encoded(tokens, None, num_bytes)
        is_learned = [any(begin <= at < end for begin, end in spans) for at, _ in found["offset_mapping"]]
        return Encoded(tokens, is_learned + [False] * (len(tokens) - len(is_learned)), num_bytes)

    def _answers(self, messages: Sequence[Mapping[str, Any]], text: str) -> Any:
        if not self.hf.is_fast:
            raise ValueError(
                f"the tokenizer {self.name} does not say which characters a token stands for, so answers cannot be "
                "told from questions; set data.loss_on: all."
            )
        for number, message in enumerate(messages):
            if message["role"] == ANSWERING:
                if number == 0:
                    raise ValueError(
                        "the conversation begins with an answer, and nothing was asked: drop that message, or set "
                        "data.loss_on: all."
                    )
                before = self._render(messages[:number], asks=True)
                through = self._render(messages[: number + 1])
                if not (text.startswith(through) and through.startswith(before)):
                    raise ValueError(
                        f"the chat template of {self.name} writes the turns before message {number + 1} otherwise when "
                        "more follows, so answers cannot be told from questions; set data.loss_on: all."
                    )
                yield len(before), len(through)

    def _render(self, messages: Sequence[Mapping[str, Any]], *, asks: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return self.hf.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks)
        except TemplateError as error:
            raise ValueError(f"the chat template of {self.name} refuses the conversation: {error}") from None

    def _ended(self, tokens: list[int]) -> list[int]:
        return tokens if tokens and tokens[-1] == self.eos_id else [*tokens, self.eos_id]


@lru_cache(maxsize=8)
def load_tokenizer(name: str) -> TextTokenizer:
    """The tokenizer of a folder or hub id, or `bytes`. ValueError where there is none."""
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError:
        raise ValueError("text needs transformers: pip install 'foreloom[text]'.") from None
    if name == BYTES:
        return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=_bytes(), eos_token=END_OF_TEXT), name)
    try:
        return TextTokenizer(
            AutoTokenizer.from_pretrained(Path(name).expanduser() if Path(name).is_dir() else name), name
        )
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{name} has no tokenizer that transformers can load: {' '.join(str(error).split())}"
        ) from error


def _bytes() -> Any:
    """Every byte a token, and one for the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate([*letters, END_OF_TEXT])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return made
