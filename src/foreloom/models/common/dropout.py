"""Dropout that a CPU can afford.

torch draws one 32-bit number an element, on one thread: a third of a training step on a CPU. Here 64-bit draws of a
fast generator are read as four 16-bit lanes, so the rate is exact to 1/65536. Elsewhere, and under torch.compile,
torch's own dropout is fused and stays in use.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LANES_PER_DRAW = 4
_NUM_LANE_VALUES = 2**16


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero each element with probability `rate` and divide the others by 1 - rate; the identity outside training."""
    if not training or rate == 0:
        return x
    return x * keep_mask(x.shape, rate, x.dtype) if _draws_lanes(x) else F.dropout(x, rate)


def add_dropped(h: Tensor, x: Tensor, rate: float, training: bool) -> Tensor:
    """h + dropout(x), in one pass where that is possible."""
    if training and rate > 0 and _draws_lanes(x) and h.dtype == x.dtype:
        return torch.addcmul(h, x, keep_mask(x.shape, rate, x.dtype))
    return h + dropout(x, rate, training)


def keep_mask(shape: torch.Size, rate: float, dtype: torch.dtype) -> Tensor:
    """A CPU tensor of 0 (with probability `rate`) and 1 / (1 - rate).

    Its seed is drawn from torch's global generator, so a run that restores that generator repeats its masks.
    """
    seed = int(torch.randint(2**63 - 1, ()))
    num_draws = -(-shape.numel() // _LANES_PER_DRAW)
    lane = torch.from_numpy(np.random.SFC64(seed).random_raw(num_draws).view(np.int16))[: shape.numel()].view(shape)
    lowest_kept = round(rate * _NUM_LANE_VALUES) - _NUM_LANE_VALUES // 2
    mask = torch.empty(shape, dtype=dtype)
    return torch.ge(lane, lowest_kept, out=mask).mul_(1 / (1 - rate))


def _draws_lanes(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
