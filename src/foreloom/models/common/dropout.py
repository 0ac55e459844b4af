"""Dropout that a CPU can afford.

torch draws one 32-bit number an element, on one thread: a third of a training step on a CPU. Here 64-bit draws of a
fast generator are read as four 16-bit lanes, so the rate is exact to 1/65536. Elsewhere, and under torch.compile,
torch's own dropout is fused and stays in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable

from foreloom.models.common.cpu import is_for_cpu, stands_for_accelerator

_LANES_PER_DRAW = 4
_NUM_LANE_VALUES = 2**16
_BLOCK = 2**17
"""Elements a mask is made for at a time: half a megabyte, so that draws and mask stay in the cache."""


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero each element with probability `rate` and divide the others by 1 - rate; the identity outside training."""
    if not training or rate == 0:
        return x
    if is_for_cpu(x):
        return x * keep_mask(x.shape, rate, x.dtype)
    # The second is what the first comes to on CUDA: its mask is of bytes.
    return torch.native_dropout(x, rate, True)[0] if stands_for_accelerator(x) else F.dropout(x, rate)


def add_dropped(h: Tensor, x: Tensor, rate: float, training: bool) -> Tensor:
    """h + dropout(x), in one pass where that is possible."""
    if training and rate > 0 and is_for_cpu(x) and h.dtype == x.dtype:
        return torch.addcmul(h, x, keep_mask(x.shape, rate, x.dtype))
    return h + dropout(x, rate, training)


def relu_dropout_(x: Tensor, rate: float, training: bool) -> Tensor:
    """dropout(relu(x)), x being overwritten: pass a result that nothing else reads."""
    if training and rate > 0 and is_for_cpu(x):
        return _ReluDropout.apply(x, rate)
    return dropout(x.relu_(), rate, training)


def set_dropout_rate(model: nn.Module, rate: float) -> None:
    """Give all parts of a model that drop activations the same rate."""
    for module in model.modules():
        if hasattr(module, "dropout_rate"):
            setattr(module, "dropout_rate", rate)  # noqa: B010  (a plain number, not a tensor or a module)


def keep_mask(shape: torch.Size, rate: float, dtype: torch.dtype) -> Tensor:
    """A CPU tensor of 0 (with probability `rate`) and 1 / (1 - rate)."""
    mask = torch.empty(shape, dtype=dtype)
    for part, keep in _blocks(mask, rate):
        torch.mul(keep, 1 / (1 - rate), out=part)
    return mask


class _ReluDropout(torch.autograd.Function):
    """Remembers no mask: where the output is 0, so is the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.mark_dirty(x)
        for part, keep in _blocks(x.relu_(), rate):
            part.mul_(keep.mul_(1 / (1 - rate)))
        ctx.save_for_backward(x)
        ctx.rate = rate
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, y, 0).mul_(1 / (1 - ctx.rate)), None


def _blocks(x: Tensor, rate: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Cache-sized parts of contiguous x, each with 0 (probability `rate`) or 1 for its elements.

    The seed is drawn from torch's global generator, so a run that restores that generator repeats its masks.
    """
    if isinstance(x, FakeTensor):
        return  # it has no elements, only a size
    generator = np.random.SFC64(int(torch.randint(2**63 - 1, ())))
    lowest_kept = round(rate * _NUM_LANE_VALUES) - _NUM_LANE_VALUES // 2
    for part in x.view(-1).split(_BLOCK):
        draws = generator.random_raw(-(-len(part) // _LANES_PER_DRAW))
        lanes = torch.from_numpy(draws.view(np.int16))[: len(part)]
        yield part, torch.ge(lanes, lowest_kept, out=torch.empty_like(part))
