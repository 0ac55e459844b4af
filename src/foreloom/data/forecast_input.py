"""One thing to forecast as rows of numbers: its targets, then its covariates.

Axes: V targets, L context steps, H horizon steps, R rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreloom.data.encoding import encode


@dataclass(frozen=True)
class ForecastInput:
    """One thing to forecast: all rows of one group. Row order: targets, past covariates, known-future covariates."""

    context_RC: np.ndarray
    """float32 or float64 (rows, L), as the data have it. Models read it by `models.common.forecasting.in_float32`."""
    future_RH: np.ndarray
    """The same (rows, H): NaN for targets and past covariates, the known values for future covariates."""
    num_targets: int
    num_past: int = 0
    num_future: int = 0


def forecast_input(
    target_VL: np.ndarray,
    past: Mapping[str, Any],
    future: Mapping[str, Any],
    prediction_length: int,
) -> ForecastInput:
    """The rows of one group: targets, covariates known over the past only, covariates known ahead (names sorted).

    `past` holds every covariate over the past, (L,) each; `future` those known ahead, (H,) each, or None for values
    not at hand. Numbers stay as they are but for infinite ones, which count as missing; anything else, booleans
    included, is a category. Raises ValueError with the covariate's name for lengths that do not fit and for a `future`
    name that `past` lacks.
    """
    length = target_VL.shape[-1]
    if not past and not future:  # as most are, by the thousand
        context_VL = np.where(np.isinf(target_VL), target_VL.dtype.type("nan"), target_VL)
        unknown_VH = np.full((len(target_VL), prediction_length), np.nan, dtype=target_VL.dtype)
        return ForecastInput(context_VL, unknown_VH, len(target_VL))
    for name in future:
        if name not in past:
            close = difflib.get_close_matches(name, past, n=1)
            hint = (
                f"Did you mean {close[0]!r}?" if close else f"Past covariates: {', '.join(map(repr, past)) or 'none'}."
            )
            raise ValueError(
                f"future covariate {name!r} has no values over the past: every future covariate must also be among "
                f"the past covariates. {hint}"
            )
    names = sorted(set(past) - set(future)) + sorted(future)
    context_RL = np.empty((len(target_VL) + len(names), length), dtype=np.float64)
    future_RH = np.full((len(context_RL), prediction_length), np.nan, dtype=np.float64)
    context_RL[: len(target_VL)] = target_VL
    for row, name in enumerate(names, start=len(target_VL)):
        past_L = _values(name, past[name], length, "past covariate", "the target")
        future_H = None
        if future.get(name) is not None:
            future_H = _values(name, future[name], prediction_length, "future covariate", "the horizon")
        if future_H is not None and _is_numeric(past_L) != _is_numeric(future_H):
            kinds = ["numbers" if _is_numeric(values) else "categories" for values in (past_L, future_H)]
            raise ValueError(f"covariate {name!r} holds {kinds[0]} over the past and {kinds[1]} over the horizon.")
        if not _is_numeric(past_L):
            past_L, future_H = encode(past_L, target_VL, future_H)
        context_RL[row] = past_L
        if future_H is not None:
            future_RH[row] = future_H
    for values in (context_RL, future_RH):
        values[np.isinf(values)] = np.nan
    return ForecastInput(context_RL, future_RH, len(target_VL), len(past) - len(future), len(future))


def _values(name: str, values: Any, length: int, kind: str, of: str) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (length,):
        raise ValueError(
            f"{kind} {name!r} has shape {array.shape}; {of} has {length} steps, so it must have shape ({length},)."
        )
    return array


def _is_numeric(values: np.ndarray) -> bool:
    return np.issubdtype(values.dtype, np.number)
