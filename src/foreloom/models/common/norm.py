"""The T5 norm: root mean square, no mean removed, no bias.

Axes: D model width; leading axes are free.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight`, the mean taken in float32 (Raffel et al. 2020; Zhang & Sennrich 2019)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D) in the dtype of the weight."""
        weight = self.weight
        if x.dtype == weight.dtype == torch.float32:
            if x.device.type == "cpu" and not torch.compiler.is_compiling():
                return _RMSNormOnCPU.apply(x, weight, self.epsilon)
            return F.rms_norm(x, weight.shape, weight, self.epsilon)
        return F.rms_norm(x.float(), weight.shape, eps=self.epsilon).to(weight.dtype) * weight


class _RMSNormOnCPU(torch.autograd.Function):
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
