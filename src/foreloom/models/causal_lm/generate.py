"""Continuations of prompts by a causal language model: transformers' own generation, seeded for each prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from foreloom.models.causal_lm.model import CausalLm

Prompt = str | Sequence[Mapping[str, str]]


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
            token_T = self._tokens(prompt, chat)
            self._check(len(token_T), max_new_tokens)
            digest = hashlib.sha256(repr((seed, token_T)).encode()).digest()
            with torch.random.fork_rng(devices):
                torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
                ids = torch.tensor([token_T], device=device)
                made = self._lm.generate(
                    ids, attention_mask=torch.ones_like(ids), pad_token_id=self._tokenizer.pad_token_id, **settings
                )
            found.append(self._tokenizer.decode(made[0, len(token_T) :], skip_special_tokens=True))
        return found

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
