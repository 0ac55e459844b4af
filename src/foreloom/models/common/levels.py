"""Between quantile levels: a forecast at levels that its model does not have, and the quantiles of many forecasts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def interpolate_levels(values: Tensor, levels: Sequence[float], wanted: Sequence[float]) -> Tensor:
    """(..., levels) -> (..., wanted), linear between trained levels and flat beyond them; trained ones are exact."""
    if tuple(levels) == tuple(wanted):
        return values
    if set(wanted) <= set(levels):
        return values[..., [tuple(levels).index(level) for level in wanted]]
    shape = values.shape[:-1]
    expand = lambda level: values.new_tensor(level).expand(*shape, -1)
    return interpolate(values, expand(levels), expand(wanted))


def interpolate(value: Tensor, at: Tensor, query: Tensor) -> Tensor:
    """Piecewise linear through the points (at, value), ascending along the last axis, constant beyond the ends."""
    upper = torch.searchsorted(at.contiguous(), query.contiguous(), right=True)
    lower = (upper - 1).clamp(min=0)
    upper = upper.clamp(max=value.shape[-1] - 1)
    at_lower, at_upper = at.gather(-1, lower), at.gather(-1, upper)
    width = at_upper - at_lower
    share = torch.where(width > 0, (query - at_lower) / width, 0.0)
    return torch.lerp(value.gather(-1, lower), value.gather(-1, upper), share)


def quantiles_of(samples: Tensor, levels: Sequence[float]) -> Tensor:
    """(..., X) samples, equally likely -> (..., levels), linear between them: torch.quantile, but of any size."""
    samples = samples.sort(dim=-1).values
    rank = samples.new_tensor(levels) * (samples.shape[-1] - 1)
    lower = rank.floor().long()
    upper = rank.ceil().long()
    return torch.lerp(samples[..., lower], samples[..., upper], rank - lower)
