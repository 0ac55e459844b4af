"""Forecasts token by token: the context is encoded once, all samples of a row share its keys, values are kept.

Every random number is a function of the series, the sample and the step, so a forecast does not depend on which series
stand beside it in a batch, nor on the rank that makes it.
Axes: B rows, N samples a row, R = B*N rows of the decoder, S tokens of the context, H steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.hashing import uniform
from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.experts import SampleRouting
from foreloom.models.common.rows import to_device
from foreloom.models.common.t5.attention import DecoderCache

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


def generate(
    module: nn.Module, id_BS: Tensor, mask_BS: Tensor | None, draw_BNH: np.ndarray, sampling: Sampling
) -> tuple[Tensor, SampleRouting | None]:
    """Tokens (B, N, H), one for each draw, and where the rows were routed.

    The end marker is never drawn (a forecast has its length), the padding token may be, as in chronos-forecasting.
    """
    arch = Architecture.of(module)
    num_rows, num_samples, num_steps = draw_BNH.shape
    memory = module(id_BS, mask_BS).memory
    cache = DecoderCache(arch.num_decoder_layers, num_steps)
    draw_HR = to_device(draw_BNH.reshape(-1, num_steps).T.astype(np.float32), id_BS.device)
    start_tokens = module.start_tokens
    assert callable(start_tokens)
    token_R = start_tokens(id_BS).repeat_interleave(num_samples)
    excluded = arch.eos_token_id if arch.use_eos_token else None
    tokens = []
    for draw_R in draw_HR:
        output = module(decoder_input_ids=token_R[:, None], memory=memory, cache=cache)
        token_R = sample_tokens(output.logits[:, -1], draw_R, sampling, excluded)
        tokens.append(token_R)
    return torch.stack(tokens, -1).view(num_rows, num_samples, num_steps), memory.routing
