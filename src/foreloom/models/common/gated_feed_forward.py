"""The gated feed-forward of Llama-style blocks: down(silu(gate x) * up x), no biases (Shazeer 2020, SwiGLU)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GatedFeedForward(nn.Module):
    """(..., width) -> (..., width); the names of the projections are those of published state dicts."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden_width, bias=False)
        self.up_proj = nn.Linear(width, hidden_width, bias=False)
        self.down_proj = nn.Linear(hidden_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu_times(self.gate_proj(x), self.up_proj(x)))


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, which fuses under torch.compile; on a CPU in the fewest passes and with nothing kept but the
    arguments."""
    if gate.device.type == "cpu" and not torch.compiler.is_compiling():
        return _SiluTimesOnCPU.apply(gate, up)
    return F.silu(gate) * up


class _SiluTimesOnCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate = gradient * up
        torch.ops.aten.silu_backward.grad_input(d_gate, gate, grad_input=d_gate)
        return d_gate, F.silu(gate).mul_(gradient)
