"""Layers written by hand for a CPU in float32: the fewest passes over memory, and nothing kept that need not be; and
when they run.

Axes: B batch, H heads, T tokens, K width of a head.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_stands_for_accelerator = False


def is_for_cpu(x: Tensor) -> bool:
    """Is the way made for a CPU to be taken with this tensor? Compiled code fuses the plain one."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not _stands_for_accelerator


def is_for_cuda(x: Tensor) -> bool:
    """Is the way made for CUDA to be taken with this tensor?"""
    return x.device.type == "cuda" or stands_for_accelerator(x)


def stands_for_accelerator(x: Tensor) -> bool:
    """Is this a tensor of the CPU by which an accelerator's memory is counted? What only a CPU's kernel keeps is then
    to be spared."""
    return _stands_for_accelerator and x.device.type == "cpu"


@contextmanager
def standing_for_accelerator() -> Generator[None]:
    """CPU tensors take an accelerator's way inside: the same operations, so that what it will hold can be counted."""
    global _stands_for_accelerator
    _stands_for_accelerator = True
    try:
        yield
    finally:
        _stands_for_accelerator = False


class RMSNormOnCPU(torch.autograd.Function):
    """The float32 norm in as few passes over memory as torch's CPU kernels allow; torch's own takes twice as many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse_rms = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse_rms)
        return (x * inverse_rms).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse_rms = ctx.saved_tensors
        # With y_d = x_d r w_d and r = (mean x^2 + eps)^-1/2: dr/dx_d = -x_d r^3 / D.
        product = gradient * x
        along = torch.matmul(product, weight).unsqueeze(-1).mul_(inverse_rms**3 / -x.shape[-1])
        weight_gradient = torch.mv(product.flatten(0, -2).t(), inverse_rms.flatten())
        x_gradient = torch.mul(gradient, weight, out=product).mul_(inverse_rms).addcmul_(x, along)
        return x_gradient, weight_gradient, None


class RotateOnCPU(torch.autograd.Function):
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


class SiluTimesOnCPU(torch.autograd.Function):
    """silu(gate) * up, with nothing kept but the two."""

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
