"""Rotary position embedding in the "halves" layout of GPT-NeoX and Llama (Su et al. 2021, RoFormer).

Axes: B batch, H heads, T tokens, K width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rotary_table(num_positions: int, head_width: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles of positions 0, 1, 2 ..., each float32 (T, K/2)."""
    return rotary_at(torch.arange(num_positions, device=device), head_width, theta)


def rotary_at(position: Tensor, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each float32 (..., K/2), of any positions: angle j turns by theta^(-2j/K) a position."""
    steps = torch.arange(0, head_width, 2, dtype=torch.float32, device=position.device)
    angle = position.float()[..., None] * theta ** (-steps / head_width)
    return angle.cos(), angle.sin()


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[j], x[j + K/2]) by its position's angle. Scores then depend on distances only."""
    cos, sin = cos.to(x_BHTK.dtype), sin.to(x_BHTK.dtype)
    if x_BHTK.device.type == "cpu" and not torch.compiler.is_compiling():
        return _RotateOnCPU.apply(x_BHTK, cos, sin)
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class _RotateOnCPU(torch.autograd.Function):
    """The rotation written straight into the layout the next product wants, forth and (by the inverse) back."""

    @staticmethod
    def forward(ctx: Any, x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x_BHTK, cos, sin, torch.empty_like(x_BHTK, memory_format=torch.contiguous_format))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BHTK: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        like_projection = torch.empty_like(gradient_BHTK.transpose(1, 2), memory_format=torch.contiguous_format)
        return _turn(gradient_BHTK, cos, -sin, like_projection.transpose(1, 2)), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin)
    return out
