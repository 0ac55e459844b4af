"""The attention seam: the one place where queries meet keys, so that a kernel is chosen once for every family.

Axes: B batch, H heads, T queries, S keys, K width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foreloom.models.common.dropout import dropout as drop

_SHORT = 128
"""Keys up to which plain matrix products beat the blocked CPU kernel."""


def attend(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, *, mask: Tensor | None = None, scale: float, dropout: float = 0.0
) -> Tensor:
    """softmax(scale * q k^T) v -> (B, H, T, K).

    `mask` broadcasts to (B, H, T, S): True where a query may look; every query needs one such key. `dropout` is the
    probability of losing an attention weight, 0 outside training.
    """
    on_cpu = q_BHTK.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and (dropout > 0 or k_BHSK.shape[2] <= _SHORT):
        return _attend_by_products(q_BHTK, k_BHSK, v_BHSK, mask, scale, dropout)
    return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=mask, dropout_p=dropout, scale=scale)


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """The definition, written out: torch's CPU kernel has no dropout, and its fallback draws slowly."""
    scores = torch.matmul(q if scale == 1 else q * scale, k.transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.float().softmax(-1).to(v.dtype)
    return torch.matmul(drop(weights, dropout, training=dropout > 0), v)
