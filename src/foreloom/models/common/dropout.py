"""Dropout."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero each element with probability `rate` and divide the others by 1 - rate; the identity outside training."""
    return F.dropout(x, rate, training)
