"""The attention seam: the one place where queries meet keys, so that a kernel is chosen once for every family.

Axes: B batch, H heads, T queries, S keys, K width of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attend(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, *, mask: Tensor | None = None, scale: float, dropout: float = 0.0
) -> Tensor:
    """softmax(scale * q k^T) v -> (B, H, T, K).

    `mask` broadcasts to (B, H, T, S): True where a query may look; every query needs one such key. `dropout` is the
    probability of losing an attention weight, 0 outside training.
    """
    return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=mask, dropout_p=dropout, scale=scale)
