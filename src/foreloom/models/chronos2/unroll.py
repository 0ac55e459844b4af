"""Horizons beyond one forward: quantile paths are fed back as context, and merged again into quantiles.

Axes: B rows, U unrolled levels (paths), Q levels of the model, L context steps, H horizon steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from foreloom.models.common.levels import interpolate, interpolate_levels

Forward = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""forward(context (B, L), future (B, H), group ids (B,), patches) -> quantiles (B, Q, patches * P)."""

UNROLLED_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def unrolled_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """The levels whose paths are followed: the nine deciles, or a model's own between 0.1 and 0.9 if it lacks one."""
    if set(UNROLLED_LEVELS) <= set(levels):
        return UNROLLED_LEVELS
    inner = tuple(level for level in levels if 0.1 <= level <= 0.9)
    if not inner:
        raise ValueError(
            f"the horizon needs unrolling, and none of the model's levels {list(levels)} lies between 0.1 and 0.9; "
            "ask for a shorter horizon, or raise the model's max_output_patches."
        )
    return inner


def unroll(
    forward: Forward,
    context_BL: Tensor,
    future_BH: Tensor,
    group_ids: Tensor,
    *,
    levels: Sequence[float],
    patch_size: int,
    max_patches: int,
    context_length: int,
) -> Tensor:
    """Quantiles (B, Q, H) of a horizon of any length, H being the steps of `future_BH` (NaN: unknown).

    After the first forward every row becomes U paths. A path appends the forecast at its level (known covariates
    override it), forecasts on, and the U * Q values of a step are merged as samples weighted by the level mass each one
    stands for. Paths of different levels never share a group.
    """
    num_rows, horizon = future_BH.shape
    num_patches = lambda steps: min(-(-steps // patch_size), max_patches)
    forecast = forward(context_BL, future_BH, group_ids, num_patches(horizon))
    done = forecast.shape[-1]
    if done >= horizon:
        return forecast[..., :horizon]
    paths = unrolled_levels(levels)
    num_paths = len(paths)
    level_Q, level_U = forecast.new_tensor(levels), forecast.new_tensor(paths)
    weight_UQ = torch.outer(level_mass(level_U), level_mass(level_Q)).flatten()
    path_ids = (group_ids[:, None] * num_paths + torch.arange(num_paths, device=group_ids.device)).flatten()
    context_BUL = context_BL[:, None].expand(-1, num_paths, -1)
    future_BUH = future_BH[:, None].expand(-1, num_paths, -1)
    last, merged = forecast, [forecast]
    while done < horizon:
        step = last.shape[-1]
        path_BUH = interpolate_levels(last.transpose(1, 2), levels, paths).transpose(1, 2)
        known_BUH = future_BUH[..., :step]
        context_BUL = torch.cat([context_BUL, torch.where(known_BUH.isnan(), path_BUH, known_BUH)], -1)
        context_BUL, future_BUH = context_BUL[..., -context_length:], future_BUH[..., step:]
        out = forward(context_BUL.flatten(0, 1), future_BUH.flatten(0, 1), path_ids, num_patches(horizon - done))
        samples_BHX = out.unflatten(0, (num_rows, num_paths)).flatten(1, 2).transpose(1, 2)
        last = weighted_quantiles(samples_BHX, weight_UQ, level_Q).transpose(1, 2)
        merged.append(last)
        done += last.shape[-1]
    return torch.cat(merged, -1)[..., :horizon]


def level_mass(level_K: Tensor) -> Tensor:
    """Probability mass each level stands for: half the distance between its neighbours, 0 and 1 as the outer ones."""
    edges = torch.cat([level_K.new_zeros(1), level_K, level_K.new_ones(1)])
    mass = (edges[2:] - edges[:-2]) / 2
    return mass / mass.sum()


def weighted_quantiles(samples: Tensor, weight: Tensor, level_Q: Tensor) -> Tensor:
    """(..., X) samples with weights (X,) that sum to 1 -> (..., Q): the cumulative weights are the level axis."""
    samples, order = samples.sort(dim=-1)
    cumulative = weight[order].cumsum(-1).clamp(max=1.0)
    return interpolate(samples, cumulative, level_Q.expand(*samples.shape[:-1], -1))
