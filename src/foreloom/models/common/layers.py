"""What blocks are made of: norm, rotary positions, feed-forward, plain and gated, and patches.

Axes: B batch, H heads, T tokens, K width of a head, L steps of a row, N patches, P steps of a patch; of norms and
feed-forwards leading axes are free.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.common.cpu import RMSNormOnCPU, RotateOnCPU, SiluTimesOnCPU, is_for_cpu
from foreloom.models.common.dropout import add_dropped, dropout, relu_dropout_


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
            if is_for_cpu(x):
                return RMSNormOnCPU.apply(x, weight, self.epsilon)
            return F.rms_norm(x, weight.shape, weight, self.epsilon)
        return F.rms_norm(x.float(), weight.shape, eps=self.epsilon).to(weight.dtype) * weight


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
    if is_for_cpu(x_BHTK):
        return RotateOnCPU.apply(x_BHTK, cos, sin)
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "gelu": F.gelu}
"""By the names configs use; "gelu" is the exact one. They may overwrite what they are given: on a CPU, fresh memory for
the widest tensor of a layer costs as much as the pass over it."""


class FeedForward(nn.Module):
    """wo(dropout(act(wi(x)))), no biases (T5)."""

    def __init__(self, width: int, hidden_width: int, activation: str, dropout_rate: float) -> None:
        super().__init__()
        self.wi = nn.Linear(width, hidden_width, bias=False)
        self.wo = nn.Linear(hidden_width, width, bias=False)
        self.activation = ACTIVATIONS[activation]
        self.dropout_rate = dropout_rate

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """What `wo` is given."""
        hidden = self.wi(x)
        if self.activation is torch.relu_:
            return relu_dropout_(hidden, self.dropout_rate, self.training)
        return dropout(self.activation(hidden), self.dropout_rate, self.training)


class ResidualBlock(nn.Module):
    """dropout(output(act(hidden(x)))) + residual(x): maps patches in and out of a model (Das et al. 2023)."""

    def __init__(self, in_width: int, hidden_width: int, out_width: int, activation: str, dropout_rate: float) -> None:
        super().__init__()
        self.hidden_layer = nn.Linear(in_width, hidden_width)
        self.output_layer = nn.Linear(hidden_width, out_width)
        self.residual_layer = nn.Linear(in_width, out_width)
        self.activation = ACTIVATIONS[activation]
        self.dropout_rate = dropout_rate

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.output_layer(self.activation(self.hidden_layer(x)))
        return add_dropped(self.residual_layer(x), hidden, self.dropout_rate, self.training)


class GatedFeedForward(nn.Module):
    """(..., width) -> (..., width); the names of the projections are those of published state dicts."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden_width, bias=False)
        self.up_proj = nn.Linear(width, hidden_width, bias=False)
        self.down_proj = nn.Linear(hidden_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu_times(self.gate_proj(x), self.up_proj(x)))


def add_product(h: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """h + x weight^T, of (..., D), (..., E) and (D, E).

    On a CPU, where no graph is made, h is overwritten: the product is added to it as it is made, which spares fresh
    memory and the passes over it.
    """
    plain = is_for_cpu(h) and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
    if plain and h.is_contiguous() and h.dtype == x.dtype == weight.dtype:
        h.view(-1, h.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight.t())
        return h
    return h + F.linear(x, weight)


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, which fuses under torch.compile; on a CPU in the fewest passes and with nothing kept but the
    arguments."""
    if is_for_cpu(gate):
        return SiluTimesOnCPU.apply(gate, up)
    return F.silu(gate) * up


def pad_left(x_BL: Tensor, multiple: int, value: float) -> Tensor:
    """Prepend `value` until the length is a multiple."""
    return F.pad(x_BL, (-x_BL.shape[-1] % multiple, 0), value=value)


def pad_right_to(x_BL: Tensor, length: int, value: float) -> Tensor:
    """Append `value` until there are `length` steps."""
    return F.pad(x_BL, (0, length - x_BL.shape[-1]), value=value)


def patches(x_BL: Tensor, patch_size: int) -> Tensor:
    """(B, N*P) -> (B, N, P)."""
    return x_BL.unflatten(-1, (-1, patch_size))
