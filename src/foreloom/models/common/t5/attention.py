"""T5's attention: unscaled scores, a bias for relative positions that the first block makes and later ones reuse.

Axes: B rows, R rows of queries (B, or several a row of keys), H heads, T queries, S keys, D model width, K width of a
head. Module names are those of the published state dict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from foreloom.models.common.attention import KeyValueCache, attend
from foreloom.models.common.t5.shape import T5Shape

SCORE_SCALE = 1.0
"""T5 leaves attention scores unscaled; the initialisation of q carries the 1/sqrt(K)."""


class Attention(nn.Module):
    """The four projections, no biases, and the table of relative positions where this is a first block's."""

    def __init__(self, shape: T5Shape, *, has_positions: bool = False, is_bidirectional: bool = True) -> None:
        super().__init__()
        self.q = nn.Linear(shape.d_model, shape.inner_width, bias=False)
        self.k = nn.Linear(shape.d_model, shape.inner_width, bias=False)
        self.v = nn.Linear(shape.d_model, shape.inner_width, bias=False)
        self.o = nn.Linear(shape.inner_width, shape.d_model, bias=False)
        if has_positions:
            self.relative_attention_bias = nn.Embedding(shape.relative_attention_num_buckets, shape.num_heads)
        self.num_heads = shape.num_heads
        self.dropout_rate = shape.dropout_rate
        self._max_distance = shape.relative_attention_max_distance
        self._is_bidirectional = is_bidirectional

    def attend_self(self, x_BTD: Tensor, bias: Tensor, cache: KeyValueCache | None) -> Tensor:
        """(B, T, D): of new positions to themselves and, with a cache, to those in it.

        `bias`, which broadcasts to (B, H, T, S), holds the positions and hides what must not be seen.
        """
        k, v = self.heads(self.k(x_BTD)), self.heads(self.v(x_BTD))
        if cache is not None:
            k, v = cache.append(k, v)
        mixed = attend(
            self.heads(self.q(x_BTD)), k, v, bias=bias, scale=SCORE_SCALE, dropout=self.attention_dropout
        )  # fmt: skip
        return self.o(mixed.transpose(1, 2).flatten(2))

    def attend_across(
        self, x_RTD: Tensor, memory_BSD: Tensor, mask_BS: Tensor | None, cache: CrossCache | None
    ) -> Tensor:
        """(R, T, D): to the encoder's states. Several rows of queries in a row may share one of the encoder's."""
        if cache is None or cache.keys is None:
            k, v = self.heads(self.k(memory_BSD)), self.heads(self.v(memory_BSD))
            if cache is not None:
                cache.keys, cache.values = k, v
        else:
            assert cache.values is not None
            k, v = cache.keys, cache.values
        num_rows, num_queries = x_RTD.shape[0], x_RTD.shape[1]
        # All queries that share a row of keys stand in one row, so that nothing is copied for them.
        q = self.heads(self.q(x_RTD).view(len(k), -1, self.num_heads * k.shape[-1]))
        mask = None if mask_BS is None else mask_BS[:, None, None, :]
        mixed = attend(q, k, v, mask=mask, scale=SCORE_SCALE, dropout=self.attention_dropout)
        return self.o(mixed.transpose(1, 2).reshape(num_rows, num_queries, -1))

    def position_bias(self, num_queries: int, num_keys: int) -> Tensor:
        """(1, H, T, S) in the dtype that scores have: the queries are the last T of the S positions."""
        table = self.relative_attention_bias.weight
        bucket_TS = bucket_of(
            distances(num_queries, num_keys, table.device),
            is_bidirectional=self._is_bidirectional,
            num_buckets=len(table),
            max_distance=self._max_distance,
        )
        bias = self.relative_attention_bias(bucket_TS).permute(2, 0, 1)[None]
        device = bias.device.type
        is_autocast = device != "meta" and torch.is_autocast_enabled(device)  # there is none for meta
        return bias.to(torch.get_autocast_dtype(device)) if is_autocast else bias

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, H*K) -> (B, H, T, K)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    @property
    def attention_dropout(self) -> float:
        return self.dropout_rate if self.training else 0.0


def hide(bias: Tensor, mask: Tensor) -> Tensor:
    """The bias with the least number there is where `mask` is False: such keys get no weight."""
    return bias.masked_fill(~mask, torch.finfo(bias.dtype).min)


def bucket_of(distance: Tensor, *, is_bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """int64, the bucket of each distance (key position - query position).

    Half of the buckets are exact, the other half grows as the logarithm up to `max_distance`, the last holding all
    beyond. Bidirectional: half of all buckets lie ahead of the query; else what lies ahead is in bucket 0.
    """
    offset: Tensor | int = 0
    if is_bidirectional:
        num_buckets //= 2
        offset = (distance > 0).long() * num_buckets
        steps = distance.abs()
    else:
        steps = (-distance).clamp(min=0)
    num_exact = num_buckets // 2
    share = torch.log(steps.clamp(min=1).float() / num_exact) / math.log(max_distance / num_exact)
    far = (num_exact + (share * (num_buckets - num_exact)).long()).clamp(max=num_buckets - 1)
    return offset + torch.where(steps < num_exact, steps, far)


def distances(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """(T, S): key position - query position, the queries being the last T of the S positions."""
    key = torch.arange(num_keys, device=device)
    return key - key[num_keys - num_queries :, None]


@dataclass
class CrossCache:
    """One layer's view of the encoder, (B, H, S, K) each, filled by the first forward."""

    keys: Tensor | None = None
    values: Tensor | None = None


@dataclass
class DecoderCache:
    """Of all layers. One generation's; a forward with it appends its positions."""

    num_layers: int
    max_length: int
    own: list[KeyValueCache] = field(init=False)
    across: list[CrossCache] = field(init=False)

    def __post_init__(self) -> None:
        self.own = [KeyValueCache(self.max_length) for _ in range(self.num_layers)]
        self.across = [CrossCache() for _ in range(self.num_layers)]

    @property
    def length(self) -> int:
        """Positions in it."""
        return self.own[0].length
