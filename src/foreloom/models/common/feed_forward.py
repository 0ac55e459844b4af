"""Two-layer perceptrons: the feed-forward of a transformer block and the residual block around patches."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.common.dropout import add_dropped, dropout, relu_dropout_

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
        hidden = self.wi(x)
        if self.activation is torch.relu_:
            return self.wo(relu_dropout_(hidden, self.dropout_rate, self.training))
        return self.wo(dropout(self.activation(hidden), self.dropout_rate, self.training))


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
