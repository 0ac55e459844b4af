"""Continuations of prompts by a causal language model: transformers' own generation, several prompts at once, what is
drawn for each by a generator of its own.

Axes: R prompts at once, T tokens, V words of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from foreloom import subnormals
from foreloom.models.causal_lm.model import CausalLm, agree

Prompt = str | Sequence[Mapping[str, str]]
_GREEDY = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
"""What the model's generation config says of drawing is put back to transformers' defaults, which it says nothing of."""


class TextGenerator:
    """See `family.Generator`."""

    def __init__(self, module: nn.Module) -> None:
        assert isinstance(module, CausalLm)
        self._lm, self._tokenizer = module.lm, module.tokenizer

    @torch.no_grad()
    @subnormals.flushed()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        chat: bool = False,
        batch_size: int = 16,
    ) -> list[str]:
        """See `family.Generator`."""
        tokens = [self._tokens(prompt, chat) for prompt in prompts]
        for token_T in tokens:
            self._check(len(token_T), max_new_tokens)
        found: dict[int, str] = {}
        for numbers in self._batches(tokens, batch_size):
            its = [tokens[number] for number in numbers]
            processors = [_Draw(its, seed, temperature, top_k, top_p)] if temperature > 0 else []
            made = self._run(its, max_new_tokens=max_new_tokens, logits_processor=processors).sequences
            texts = self._tokenizer.batch_decode(made[:, max(map(len, its)) :], skip_special_tokens=True)
            found.update(zip(numbers, texts, strict=True))
        return [found[number] for number in range(len(prompts))]

    def _run(self, tokens: Sequence[Sequence[int]], **settings: Any) -> Any:
        """Prompts of any lengths, padded on the left, where the mask hides it and no position is counted."""
        device = next(self._lm.parameters()).device
        length, pad = max(map(len, tokens)), self._tokenizer.pad_token_id
        ids_RT = torch.tensor([[pad] * (length - len(one)) + list(one) for one in tokens], device=device)
        mask_RT = torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one in tokens], device=device)
        return self._lm.generate(
            ids_RT, attention_mask=mask_RT, pad_token_id=pad, return_dict_in_generate=True, **_GREEDY | settings
        )

    def _batches(self, tokens: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
        """Numbers of prompts that are gone on with together, those of like length."""
        order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
        batch: list[int] = []
        for number in order:
            is_longer = bool(batch) and len(tokens[number]) > len(tokens[batch[0]])
            if len(batch) == batch_size or (is_longer and not self._bears_padding):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    @cached_property
    def _bears_padding(self) -> bool:
        """Does a short prompt give beside a longer one what it gives alone? Tried on a few tokens, as a recurrent
        architecture may not look at the mask."""
        vocabulary = self._lm.get_input_embeddings().num_embeddings
        one, longer = ([(7 * place + 1) % vocabulary for place in range(length)] for length in (5, 9))
        ask = lambda tokens: self._run(tokens, max_new_tokens=1, output_scores=True).scores[0][0]
        return agree(ask([one, longer]), ask([one]))

    def _tokens(self, prompt: Prompt, chat: bool) -> list[int]:
        if not chat:
            if not isinstance(prompt, str):
                raise ValueError("a prompt of messages is a conversation: ask with chat.")
            token_T = self._tokenizer(prompt)["input_ids"]
            # A tokenizer that ends what it is given has not been told that it is to go on.
            token_T = token_T[:-1] if token_T and token_T[-1] == self._tokenizer.eos_token_id else token_T
        else:
            if not self._tokenizer.chat_template:
                raise ValueError("this model's tokenizer has no chat template; ask without chat.")
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            token_T = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if not token_T:
            raise ValueError(f"the prompt {prompt!r} has no tokens to go on from; write a word.")
        return list(token_T)

    def _check(self, num_tokens: int, max_new_tokens: int) -> None:
        limit = getattr(self._lm.config, "max_position_embeddings", None)
        if limit is not None and num_tokens + max_new_tokens > limit:
            raise ValueError(
                f"a prompt of {num_tokens:,} tokens and {max_new_tokens:,} new ones are more than the {limit:,} that "
                "the model reads; shorten one."
            )


class _Draw:
    """Draws the next token of each prompt and leaves it alone likely: for a generation that takes the likeliest. A
    prompt draws by (seed, its tokens), whatever stands beside it."""

    def __init__(
        self, tokens: Sequence[Sequence[int]], seed: int, temperature: float, top_k: int, top_p: float
    ) -> None:
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        self._generators = []
        for token_T in tokens:
            digest = hashlib.sha256(repr((seed, list(token_T))).encode()).digest()
            self._generators.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))
        self._warpers: list[Any] = [TemperatureLogitsWarper(float(temperature))]
        self._warpers += [TopKLogitsWarper(top_k)] if top_k else []
        self._warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        up_to_RV = scores.float().softmax(-1).cpu().double().cumsum(-1)
        place_R1 = torch.stack([torch.rand(1, generator=one, dtype=torch.float64) for one in self._generators])
        chosen_R1 = torch.searchsorted(up_to_RV, place_R1 * up_to_RV[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen_R1.to(scores.device), 0.0)
