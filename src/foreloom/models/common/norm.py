"""The T5 norm: root mean square, no mean removed, no bias.

Axes: D model width; leading axes are free.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight`, the mean taken in float32 (Raffel et al. 2020; Zhang & Sennrich 2019)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D) in the dtype of the weight."""
        x32 = x.float()
        inverse_rms = torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return (x32 * inverse_rms).to(self.weight.dtype) * self.weight
