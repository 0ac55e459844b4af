"""Rotary position embedding in the "halves" layout of GPT-NeoX and Llama (Su et al. 2021, RoFormer).

Axes: B batch, H heads, T tokens, K width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(num_positions: int, head_width: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each float32 (T, K/2): angle j turns by theta^(-2j/K) a position."""
    inverse_frequency = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float32, device=device) / head_width)
    angle = torch.outer(torch.arange(num_positions, dtype=torch.float32, device=device), inverse_frequency)
    return angle.cos(), angle.sin()


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[j], x[j + K/2]) by its position's angle. Scores then depend on distances only."""
    cos, sin = cos.to(x_BHTK.dtype), sin.to(x_BHTK.dtype)
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
