"""Cut rows into patches.

Axes: B rows, L steps, N patches, P steps of a patch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_left(x_BL: Tensor, multiple: int, value: float) -> Tensor:
    """Prepend `value` until the length is a multiple."""
    return F.pad(x_BL, (-x_BL.shape[-1] % multiple, 0), value=value)


def pad_right_to(x_BL: Tensor, length: int, value: float) -> Tensor:
    """Append `value` until there are `length` steps."""
    return F.pad(x_BL, (0, length - x_BL.shape[-1]), value=value)


def patches(x_BL: Tensor, patch_size: int) -> Tensor:
    """(B, N*P) -> (B, N, P)."""
    return x_BL.unflatten(-1, (-1, patch_size))
