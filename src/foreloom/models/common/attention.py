"""The attention seam: the one place where queries meet keys, so that a kernel is chosen once for every family.

Axes: B batch, H heads (G of keys and values, which divides H), T queries, S keys, K width of a head.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from foreloom.models.common.cpu import is_for_cpu, stands_for_accelerator
from foreloom.models.common.dropout import dropout as drop

Implementation = Literal["auto", "eager", "sdpa", "flash_attention_2"]
"""By the names of transformers: the fastest for device and shape; the definition, written out; torch's fused kernels;
the kernels of the flash-attn package, and torch's where a mask must be seen, which those cannot."""

_SHORT = 128
"""Keys up to which plain matrix products beat the blocked CPU kernel, which wins where it may skip what is ahead."""


def attend(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float,
    dropout: float = 0.0,
    implementation: Implementation = "auto",
) -> Tensor:
    """softmax(scale * q k^T + bias) v -> (B, H, T, K).

    Head h looks at the keys of head h // (H / G). `mask` broadcasts to (B, H, T, S): True where a query may look; every
    query needs one such key. `bias`, which broadcasts likewise, is added to the scores; what it is to hide it holds the
    least number for. `is_causal`: the queries are the last T of the S positions, and none looks ahead. Give one of the
    three (`causal_mask` and `packed_mask` build what combines them). `dropout` is the probability of losing an
    attention weight, 0 outside training. ValueError where flash_attention_2 cannot do what is asked.
    """
    assert (mask is not None) + (bias is not None) + is_causal <= 1
    if implementation == "flash_attention_2" and mask is None and bias is None:
        return _attend_by_flash(q_BHTK, k_BGSK, v_BGSK, is_causal, scale, dropout)
    num_queries, num_keys = q_BHTK.shape[2], k_BGSK.shape[2]
    is_causal = is_causal and num_queries > 1  # the last position sees everything
    by_products = implementation == "auto" and is_for_cpu(q_BHTK)
    is_small = num_keys <= _SHORT and not is_causal
    if implementation == "eager" or (by_products and (dropout > 0 or is_small or bias is not None)):
        mask = causal_mask(num_queries, num_keys, q_BHTK.device) if is_causal else mask
        k_BHSK, v_BHSK = (_repeat_heads(x, q_BHTK.shape[1]) for x in (k_BGSK, v_BGSK))
        return _attend_by_products(q_BHTK, k_BHSK, v_BHSK, mask, bias, scale, dropout)
    if is_causal and num_queries < num_keys:
        # torch's flag counts the queries from the first key on; here they are the last.
        mask, is_causal = causal_mask(num_queries, num_keys, q_BHTK.device), False
    shares_heads = q_BHTK.shape[1] != k_BGSK.shape[1]
    on_cpu = q_BHTK.device.type == "cpu" and not stands_for_accelerator(q_BHTK)
    if shares_heads and not (mask is None and bias is None) and not on_cpu:  # torch has no CUDA kernel that does both
        k_BGSK, v_BGSK = (_repeat_heads(x, q_BHTK.shape[1]) for x in (k_BGSK, v_BGSK))
        shares_heads = False
    if stands_for_accelerator(q_BHTK):  # whose kernels keep neither what was dropped nor scores for a bias that learns
        dropout, bias = 0.0, None if bias is None else bias.detach()
    return F.scaled_dot_product_attention(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        attn_mask=mask if bias is None else bias.to(q_BHTK.dtype),
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=shares_heads,
    )


def attend_shared(
    q_RH1K: Tensor,
    shared: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    mask_BS: Tensor | None,
    *,
    scale: float,
) -> Tensor:
    """One query a row over keys that R / B rows in a row share, and keys of the row's own -> (R, H, 1, K).

    `shared`: keys and values (B, H, S, K), of which `mask_BS` hides some; nothing of them is copied for the rows that
    share them. `own`: keys and values (R, H, T, K).
    """
    (shared_k, shared_v), (own_k, own_v) = shared, own
    num_rows, num_shared = len(shared_k), shared_k.shape[2]
    beside = lambda x_RH1K: x_RH1K.unflatten(0, (num_rows, -1)).squeeze(3).transpose(1, 2)  # (B, H, R / B, K)
    apart = lambda x_BHNS: x_BHNS.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    q_RH1K = q_RH1K * scale
    scores_BHNS = torch.matmul(beside(q_RH1K), shared_k.transpose(-1, -2))
    if mask_BS is not None:
        scores_BHNS = scores_BHNS.masked_fill(~mask_BS[:, None, None, :], -torch.inf)
    scores = torch.cat([apart(scores_BHNS), torch.matmul(q_RH1K, own_k.transpose(-1, -2))], -1)
    weights = scores.float().softmax(-1).to(own_v.dtype)
    of_shared = torch.matmul(beside(weights[..., :num_shared]), shared_v)
    return apart(of_shared) + torch.matmul(weights[..., num_shared:], own_v)


class KeyValueCache:
    """Keys and values of the positions that an attention layer has seen, in room taken once: at the first append, when
    shape and dtype are known."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """Most positions."""
        self.length = 0
        """Positions so far."""
        self._room: tuple[Tensor, Tensor] | None = None

    def append(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions behind the old ones; keys and values of all so far, (B, G, S, K) each."""
        if self._room is None:
            shape = (*k_BGTK.shape[:2], self.capacity, k_BGTK.shape[3])
            self._room = k_BGTK.new_empty(shape), v_BGTK.new_empty(shape)
        start, self.length = self.length, self.length + k_BGTK.shape[2]
        assert self.length <= self.capacity
        for room, new in zip(self._room, (k_BGTK, v_BGTK), strict=True):
            room[:, :, start : self.length] = new
        key, value = self._room
        return key[:, :, : self.length], value[:, :, : self.length]


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """(T, S) bool: query t, the position S - T + t, sees the keys up to itself."""
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)


def packed_mask(segment_BT: Tensor) -> Tensor:
    """(B, 1, T, T) bool for rows packed of several sequences: causal within a segment, nothing across its border.

    `segment_BT` (any integers) tells segments apart.
    """
    same_BTT = segment_BT[:, :, None] == segment_BT[:, None, :]
    return (same_BTT & causal_mask(segment_BT.shape[1], segment_BT.shape[1], segment_BT.device))[:, None]


def _repeat_heads(x_BGSK: Tensor, num_heads: int) -> Tensor:
    repeats = num_heads // x_BGSK.shape[1]
    return x_BGSK if repeats == 1 else x_BGSK.repeat_interleave(repeats, dim=1)


def _attend_by_products(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """The definition, written out: torch's CPU kernel has no dropout, and its fallback draws slowly."""
    scores = torch.matmul(q if scale == 1 else q * scale, k.transpose(-1, -2))
    if bias is not None:
        scores = scores.add_(bias) if scores.dtype == bias.dtype else scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.float().softmax(-1).to(v.dtype)
    return torch.matmul(drop(weights, dropout, training=dropout > 0), v)


def _attend_by_flash(q: Tensor, k: Tensor, v: Tensor, is_causal: bool, scale: float, dropout: float) -> Tensor:
    """flash-attn's own entry; its causal mask counts queries from the last key, as ours does."""
    if q.device.type != "cuda":
        raise ValueError(
            f"attn_implementation flash_attention_2 needs a CUDA device, and this model is on {q.device}; use sdpa."
        )
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"attn_implementation flash_attention_2 works in bfloat16 or float16, and this model computes in "
            f"{q.dtype}; run it under autocast (training.precision: bf16) or use sdpa."
        )
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise ValueError(
            "attn_implementation flash_attention_2 needs the flash-attn package, which cannot be imported "
            f"({error}): pip install flash-attn, or use sdpa."
        ) from error
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return flash_attn_func(q, k, v, dropout_p=dropout, softmax_scale=scale, causal=is_causal).transpose(1, 2)
