"""What the original lab decided by width: depth, heads, tokens, rows of a micro-batch and accumulation.

Kept to read and repeat its studies, not to plan new ones: its micro-batch times its accumulation is not always the
global batch that was asked for, and its memory is a formula whose terms are partly counted twice and partly left out
(attention by layers). `run.memory` counts instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Gpu = Literal["V100", "H100"]
_USABLE = {"V100": 30 * 2**30, "H100": 76 * 2**30}
_VOCABULARY = 50257
_FEED_FORWARD = 4
_TOKENS_PER_PARAMETER = 20


@dataclass(frozen=True)
class LegacyRun:
    """A run as the original's generator makes it: a SwiGLU Transformer with tied embeddings on GPT-2's tokens."""

    num_layers: int
    num_heads: int
    num_parameters: int
    """By its formula: norms and biases left out."""
    num_tokens: int
    accumulation: int
    micro_batch_size: int

    @property
    def batch_size(self) -> int:
        """What the two really come to."""
        return self.accumulation * self.micro_batch_size


def legacy_run(hidden_dim: int, *, batch_size: int = 64, seq_length: int = 128, gpu: Gpu = "V100") -> LegacyRun:
    """The run of a width. `batch_size` is what the global batch is meant to be."""
    num_layers = max(1, round(hidden_dim / 16))
    num_heads = max(1, round(hidden_dim / 16))
    while hidden_dim % num_heads:
        num_heads -= 1
    of_block = (4 + 3 * _FEED_FORWARD) * hidden_dim**2
    num_parameters = _VOCABULARY * (hidden_dim + 1) + num_layers * of_block
    accumulation = _accumulation(hidden_dim, num_layers, num_heads, num_parameters, batch_size, seq_length, gpu)
    return LegacyRun(
        num_layers,
        num_heads,
        num_parameters,
        _TOKENS_PER_PARAMETER * num_parameters,
        accumulation,
        batch_size // accumulation,
    )


def _accumulation(width: int, layers: int, heads: int, parameters: int, batch_size: int, length: int, gpu: Gpu) -> int:
    """Its thresholds: 60 % of the usable memory, 45 from 64 wide on, 35 from 128, 20 from 256; and its safety factors:
    1.2, 1.3 from 64 wide on, 1.5 from 128."""
    share = next(share for least, share in ((256, 0.20), (128, 0.35), (64, 0.45), (0, 0.60)) if width >= least)
    safety = next(factor for least, factor in ((128, 1.5), (64, 1.3), (0, 1.2)) if width >= least)
    usable, fixed = _USABLE[gpu] * share, 20 * parameters
    states = length * width * layers
    kept = states + 2 * heads * length**2 + 3 * length * width + 1.5 * _FEED_FORWARD * states
    of_row = safety * 2 * 4 * (length * _VOCABULARY + kept)
    most = max(1, int((usable - fixed) / of_row))
    return min(math.ceil(batch_size / most), 64 if fixed > usable else 128)
