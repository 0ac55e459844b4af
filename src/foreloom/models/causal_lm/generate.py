"""Continuations of prompts by a causal language model: transformers' own generation, several prompts at once, what is
drawn for each by a generator of its own.

Axes: R prompts at once, T tokens, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from foreloom import subnormals
from foreloom.models.causal_lm.model import CausalLm, agree
from foreloom.models.common.text import Prompt, check_prompt, chosen, prompt_seed, prompt_tokens

_GREEDY = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
"""Against what the model's generation config says of drawing: transformers' defaults, which it takes for nothing."""


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
        tokens = [prompt_tokens(self._tokenizer, prompt, chat=chat) for prompt in prompts]
        for token_T in tokens:
            check_prompt(len(token_T), max_new_tokens, getattr(self._lm.config, "max_position_embeddings", None))
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


class _Draw:
    """Draws the next token of each prompt and leaves it alone likely: for a generation that takes the likeliest. A
    prompt draws by (seed, its tokens), whatever stands beside it."""

    def __init__(
        self, tokens: Sequence[Sequence[int]], seed: int, temperature: float, top_k: int, top_p: float
    ) -> None:
        self._generators = [torch.Generator().manual_seed(prompt_seed(seed, one)) for one in tokens]
        self._its = temperature, top_k, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = zip(scores.float().cpu(), self._generators, strict=True)
        token_R1 = torch.tensor([[chosen(scores_V, *self._its, generator)] for scores_V, generator in rows])
        return torch.full_like(scores, -torch.inf).scatter_(1, token_R1.to(scores.device), 0.0)
