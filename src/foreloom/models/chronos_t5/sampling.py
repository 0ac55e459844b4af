"""Sampled forecasts: every random number is a function of the series, the sample and the step.

So a forecast does not depend on which series stand beside it in a batch, nor on the rank that makes it.
Axes: B rows, N samples a row, R = B*N rows of the decoder, H steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreloom.data.hashing import uniform
from foreloom.models.chronos_t5.architecture import Architecture

_STEPS_OF_A_SAMPLE = 2**24


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. As in the checkpoint's chronos_config, unless told otherwise."""

    num_samples: int
    temperature: float
    top_k: int
    """Only so many of the likeliest tokens may be drawn; 0: all, 1: always the likeliest."""
    top_p: float
    """Only the likeliest tokens that together have this probability may be drawn; 1: all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {self.num_samples}.")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature:g}; top_k=1 is the likeliest token.")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0 (all tokens), got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie above 0 and up to 1, got {self.top_p:g}.")

    @classmethod
    def of(cls, arch: Architecture) -> Sampling:
        """The checkpoint's."""
        return cls(arch.num_samples, arch.temperature, arch.top_k, arch.top_p)

    def changed(self, changes: Mapping[str, Any]) -> Sampling:
        """The same with those of `changes` that are not None."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


def draws(contexts: Sequence[np.ndarray], num_samples: int, first_step: int, num_steps: int, seed: int) -> np.ndarray:
    """float64 (B, N, H) in [0, 1), for steps `first_step` on after each context (its values, without padding)."""
    key_B = np.array([_key(context) for context in contexts], dtype=np.uint64)
    sample_N = np.arange(num_samples, dtype=np.uint64) * np.uint64(_STEPS_OF_A_SAMPLE)
    step_H = np.arange(first_step, first_step + num_steps, dtype=np.uint64)
    return uniform(seed, "forecast", "token", key_B[:, None, None] + sample_N[:, None] + step_H)


def sample_tokens(logits_RV: Tensor, draw_R: Tensor, sampling: Sampling, excluded: int | None) -> Tensor:
    """int64 (R,), by inverting the cumulative probabilities at `draw_R`; the token `excluded` is never drawn.

    Temperature, then top-k, then top-p of what is left (Holtzman et al. 2020), as transformers orders them.
    """
    logits_RV = logits_RV.float()
    if excluded is not None:
        logits_RV = logits_RV.clone()
        logits_RV[:, excluded] = -torch.inf
    num_kept = min(sampling.top_k or logits_RV.shape[-1], logits_RV.shape[-1])
    value_RK, token_RK = logits_RV.topk(num_kept, dim=-1)
    probability_RK = (value_RK / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        before_RK = probability_RK.cumsum(-1) - probability_RK
        probability_RK = torch.where(before_RK < sampling.top_p, probability_RK, 0.0)
    cumulative_RK = probability_RK.cumsum(-1)
    target_R1 = draw_R[:, None].to(cumulative_RK.dtype) * cumulative_RK[:, -1:]
    # Rounding may bring a draw up to the total, behind which only tokens without any probability lie.
    last_R1 = (probability_RK > 0).sum(-1, keepdim=True) - 1
    place_R1 = torch.minimum(torch.searchsorted(cumulative_RK, target_R1, right=True), last_R1)
    return token_RK.gather(-1, place_R1)[:, 0]


def _key(context: np.ndarray) -> int:
    """64 bits of a series' values."""
    return int.from_bytes(blake2b(np.ascontiguousarray(context).tobytes(), digest_size=8).digest(), "little")
