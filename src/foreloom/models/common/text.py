"""What families that read and write text share: batches, the loss of tokens, figures, continuations, tokenizers.

Axes: R rows, T tokens, N = R T, D width, V words of the vocabulary.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.batch import DataSection
from foreloom.data.text.tokenizer import TextTokenizer, load_tokenizer
from foreloom.models.common.hub_folder import HubFolder, base_folder, read_json
from foreloom.models.common.lora import ADAPTER_CONFIG_FILE
from foreloom.objectives.linear_cross_entropy import linear_cross_entropy
from foreloom.objectives.loss import Loss

Prompt = str | Sequence[Mapping[str, str]]
NO_TARGET = -100
"""A label that none is."""


class TextOutput(NamedTuple):
    """See `family.ModelOutput`."""

    loss: Tensor
    objective: Loss
    tally: Mapping[str, Tensor]
    carry: Mapping[str, Tensor] | None = None
    """Of recurrent modules: what the rows leave behind, detached."""


def text_data() -> type[DataSection]:
    """Text. Imported when it is asked for: whoever loads a model to generate needs none of it."""
    from foreloom.data.text.section import TextData

    return TextData


def text_for_attention(config: Any, text: Any) -> Any:
    """The data section with the tokenizer of the pretrained model, where it names none: see `family.data_for`.

    ValueError for streams, of which a model without a state sees nothing but their rows.
    """
    if text.packing == "streams":
        raise ValueError(
            f"data.packing: streams are for models that carry a state from row to row, and {config.family} has none; "
            "use blocks or documents."
        )
    return with_tokenizer(config, text)


def with_tokenizer(config: Any, text: Any) -> Any:
    """The data section with the tokenizer of the pretrained model, where it names none: see `family.data_for`."""
    if text.tokenizer is None and config.pretrained is not None:
        return dataclasses.replace(text, tokenizer=config.pretrained)
    return text


def text_batch(tokens: Any, device: torch.device) -> dict[str, Tensor]:
    """`data.text.dataset.Tokens` as the arguments `input_ids`, `labels`, `num_bytes`, and `position_ids` where
    documents share rows."""
    arrays = {"input_ids": tokens.token_RT, "labels": tokens.target_RT}
    if tokens.position_RT is not None:
        arrays["position_ids"] = tokens.position_RT
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    tensors["num_bytes"] = torch.tensor(float(tokens.num_bytes_R.sum()), dtype=torch.float32)
    if device.type == "cuda":
        tensors = {name: value.pin_memory() for name, value in tensors.items()}
    return {name: value.to(device, non_blocking=True) for name, value in tensors.items()}


def text_output(total: Tensor, entropy: Tensor, labels: Tensor, num_bytes: Tensor | None) -> TextOutput:
    """`total`: what is learned, summed over the labels; `entropy`: their cross entropy, without a gradient."""
    objective = Loss(total, (labels != NO_TARGET).sum())
    tally = {"token_loss": torch.stack([entropy, objective.count.float()])}
    if num_bytes is not None:
        tally["text_bytes"] = num_bytes.detach().reshape(1)
    return TextOutput(objective.mean, objective, tally)


def head_output(
    h_RTD: Tensor, weight_VD: Tensor, labels: Tensor, num_bytes: Tensor | None, **settings: Any
) -> TextOutput:
    """The loss of a linear head over the hidden states; `settings` are those of `linear_cross_entropy`."""
    total, entropy = linear_cross_entropy(
        h_RTD.flatten(0, 1), weight_VD, labels.flatten(), ignored=NO_TARGET, **settings
    )
    return text_output(total, entropy, labels, num_bytes)


def figures(module: nn.Module, tally: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Perplexity, e to the mean loss of a token; the loss in bits per byte of text, which models with other tokenizers
    share; and of recurrent models the share of rows that went on from a carried state: with none, a row has no more
    context than one of an attention model."""
    loss, count = tally["token_loss"]
    if not count:
        return {}
    named = {"perplexity": float(np.exp(loss / count))}
    if "carried_rows" in tally:
        named["state_carried"] = float(tally["carried_rows"][0] / tally["carried_rows"][1])
    if "text_bytes" in tally and (num_bytes := float(tally["text_bytes"][0])):
        named["bits_per_byte"] = float(loss) / math.log(2) / num_bytes
    return named


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """Tokens, of which another tokenizer has others."""
    return type(module.tokenizer).__name__, len(module.tokenizer)  # type: ignore[arg-type]


def continuations(generator: Callable[[nn.Module], Any]) -> Callable[[nn.Module, Any], list[tuple[str, str]]]:
    """The likeliest ones of the recipe's prompts, by such a generator: see `family.ModelFamily.continuations`."""

    def show(module: nn.Module, validation: Any) -> list[tuple[str, str]]:
        its = generator(module).generate(validation.prompts, max_new_tokens=validation.prompt_tokens, temperature=0)
        return list(zip(validation.prompts, its, strict=True))

    return show


def load_with_tokenizer(record: HubFolder[Any], folder: str | Path) -> Any:
    """The model of a folder, or of an adapter's base, with the tokenizer that lies beside it."""
    module, folder = record.load(folder), Path(folder)
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        folder = base_folder(folder, read_json(folder / ADAPTER_CONFIG_FILE))
    module.tokenizer = load_tokenizer(str(folder)).hf
    return module


def save_with_tokenizer(record: HubFolder[Any]) -> Callable[[nn.Module, Mapping[str, Tensor], Path], None]:
    """What writes a model's folder with its tokenizer: see `family.ModelFamily.save`."""

    def save(module: nn.Module, state_dict: Mapping[str, Tensor], folder: Path) -> None:
        record.save(module, state_dict, folder)
        module.tokenizer.save_pretrained(folder)  # type: ignore[operator, union-attr]

    return save


def check_vocabulary(num_known: int, tokenizer: TextTokenizer) -> None:
    """ValueError where a pretrained model has no row for some token."""
    if tokenizer.vocabulary_size > num_known:
        raise ValueError(
            f"the tokenizer {tokenizer.name} has {tokenizer.vocabulary_size:,} tokens and the pretrained model knows "
            f"{num_known:,}; leave data.tokenizer out, for that of the model."
        )


def prompt_tokens(tokenizer: Any, prompt: Prompt, *, chat: bool) -> list[int]:
    """A prompt as transformers' tokenizer has it, left open at its end.

    ValueError where it is empty, a conversation without `chat`, or `chat` without a template.
    """
    if not chat:
        if not isinstance(prompt, str):
            raise ValueError("a prompt of messages is a conversation: ask with chat.")
        token_T = tokenizer(prompt)["input_ids"]
        # A tokenizer that ends what it is given has not been told that it is to go on.
        token_T = token_T[:-1] if token_T and token_T[-1] == tokenizer.eos_token_id else token_T
    else:
        if not tokenizer.chat_template:
            raise ValueError("this model's tokenizer has no chat template; ask without chat.")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        token_T = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not token_T:
        raise ValueError(f"the prompt {prompt!r} has no tokens to go on from; write a word.")
    return list(token_T)


def check_prompt(num_tokens: int, max_new_tokens: int, longest: int | None) -> None:
    """ValueError where prompt and continuation are more tokens than the model reads."""
    if longest is not None and num_tokens + max_new_tokens > longest:
        raise ValueError(
            f"a prompt of {num_tokens:,} tokens and {max_new_tokens:,} new ones are more than the {longest:,} that "
            "the model reads; shorten one."
        )


def prompt_seed(seed: int, token_T: Sequence[int]) -> int:
    """Of what is drawn for a prompt: of it and of the seed alone."""
    digest = hashlib.sha256(repr((seed, list(token_T))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class StepwiseModel(Protocol):
    """A module that reads a text bit by bit and remembers it."""

    tokenizer: Any
    longest: int | None
    """Most tokens of a text; None: any number."""

    def memory(self, num_tokens: int) -> Any:
        """Room for what the module remembers of a text of at most so many tokens, of which it has read none."""
        ...

    def next_logits(self, token_1T: Tensor, memory: Any) -> Tensor:
        """(V,): of the token after these, which go on where `memory`, which is moved on, ended."""
        ...


class StepwiseGenerator:
    """See `family.Generator`. Each prompt by itself, whatever `batch_size`, each token read once."""

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module

    @torch.no_grad()
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
        module: StepwiseModel = self._module
        device = next(self._module.parameters()).device
        found = []
        for prompt in prompts:
            token_T = prompt_tokens(module.tokenizer, prompt, chat=chat)
            check_prompt(len(token_T), max_new_tokens, module.longest)
            generator = torch.Generator().manual_seed(prompt_seed(seed, token_T))
            memory = module.memory(len(token_T) + max_new_tokens)
            made, unread = list[int](), token_T
            while len(made) < max_new_tokens:
                logits_V = module.next_logits(torch.tensor([unread], device=device), memory).float().cpu()
                token = chosen(logits_V, temperature, top_k, top_p, generator)
                if token == module.tokenizer.eos_token_id:
                    break
                made.append(token)
                unread = [token]
            found.append(module.tokenizer.decode(made, skip_special_tokens=True))
        return found


def chosen(logits_V: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """The likeliest token, or one drawn of the likeliest; probabilities are summed in float64, so that the fewest that
    reach `top_p` are that."""
    if temperature == 0:
        return int(logits_V.argmax())
    probability_V, token_V = (logits_V.double() / temperature).softmax(0).sort(descending=True, stable=True)
    if top_k:
        probability_V = probability_V[:top_k] / probability_V[:top_k].sum()
    before_V = probability_V.cumsum(0) - probability_V
    probability_V = probability_V[before_V < top_p]
    return int(token_V[torch.multinomial(probability_V, 1, generator=generator)])
