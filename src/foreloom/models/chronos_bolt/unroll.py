"""Horizons beyond the head: every quantile is fed back as a path of its own, and the paths' quantiles are merged.

Axes: B rows, Q levels of the model (and paths), L context steps, H horizon steps, P steps of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from foreloom.models.common.levels import quantiles_of

Forward = Callable[[Tensor], Tensor]
"""forward(context (B, L)) -> quantiles (B, Q, P)."""


def unroll(
    forward: Forward, context_BL: Tensor, horizon: int, *, levels: Sequence[float], context_length: int
) -> Tensor:
    """Quantiles (B, Q, H) of a horizon of any length, as chronos-forecasting's pipeline has them.

    After the first forward every row becomes Q paths. A path appends the forecast at its level and forecasts on; the
    Q * Q values of a step count as equally likely, and their quantiles are the forecast, and what the paths append.
    """
    last_BQP = forward(context_BL)
    merged = [last_BQP]
    paths_BQL = context_BL[:, None].expand(-1, len(levels), -1)
    for _ in range(last_BQP.shape[-1], horizon, last_BQP.shape[-1]):
        paths_BQL = torch.cat([paths_BQL, last_BQP], -1)[..., -context_length:]
        samples_BXP = forward(paths_BQL.flatten(0, 1)).unflatten(0, (len(context_BL), -1)).flatten(1, 2)
        last_BQP = quantiles_of(samples_BXP.transpose(1, 2), levels).transpose(1, 2)
        merged.append(last_BQP)
    return torch.cat(merged, -1)[..., :horizon]
