"""T5's relative positions: a learned number a head for each bucket of distances (Raffel et al. 2020, section 2.1).

Axes: H heads, T queries, S keys.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
