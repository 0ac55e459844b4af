"""Continuations of prompts by a causal language model: transformers' own generation, seeded for each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from foreloom.models.causal_lm.model import CausalLm
from foreloom.models.common.text import Prompt, check_prompt, prompt_seed, prompt_tokens


class TextGenerator:
    """See `family.Generator`."""

    def __init__(self, module: nn.Module) -> None:
        assert isinstance(module, CausalLm)
        self._lm, self._tokenizer = module.lm, module.tokenizer

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
    ) -> list[str]:
        """See `family.Generator`."""
        device = next(self._lm.parameters()).device
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            settings |= {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        devices = [device] if device.type == "cuda" else []
        found = []
        for prompt in prompts:
            token_T = prompt_tokens(self._tokenizer, prompt, chat=chat)
            check_prompt(len(token_T), max_new_tokens, getattr(self._lm.config, "max_position_embeddings", None))
            with torch.random.fork_rng(devices):
                torch.manual_seed(prompt_seed(seed, token_T))
                ids = torch.tensor([token_T], device=device)
                made = self._lm.generate(
                    ids, attention_mask=torch.ones_like(ids), pad_token_id=self._tokenizer.pad_token_id, **settings
                )
            found.append(self._tokenizer.decode(made[0, len(token_T) :], skip_special_tokens=True))
        return found
