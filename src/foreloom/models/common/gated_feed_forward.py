"""The gated feed-forward of Llama-style blocks: down(silu(gate x) * up x), no biases (Shazeer 2020, SwiGLU)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class GatedFeedForward(nn.Module):
    """(..., width) -> (..., width); the names of the projections are those of published state dicts."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden_width, bias=False)
        self.up_proj = nn.Linear(width, hidden_width, bias=False)
        self.down_proj = nn.Linear(hidden_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
