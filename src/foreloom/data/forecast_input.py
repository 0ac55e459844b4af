"""One thing to forecast as rows of numbers: its targets, then its covariates.

Axes: V targets, L context steps, H horizon steps, R rows.
"""

from __future__ import annotations

import difflib
import numbers
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

    def targets_alone(self) -> ForecastInput:
        """Without its covariates."""
        targets = slice(self.num_targets)
        return ForecastInput(self.context_RC[targets], self.future_RH[targets], self.num_targets)


def forecast_input(
    target_VL: np.ndarray,
    past: Mapping[str, Any],
    future: Mapping[str, Any],
    prediction_length: int,
) -> ForecastInput:
    """The rows of one group: targets, covariates known over the past only, covariates known ahead (names sorted).

    `past` holds every covariate over the past, (L,) each; `future` those known ahead, (H,) each, or None for values
    not at hand. Numbers stay as they are but for infinite ones, which count as missing, None and masked ones too;
    text and booleans are categories. Raises ValueError with the covariate's name for lengths that do not fit, for a
    `future` name that `past` lacks, and for times and other things that are neither number nor label.
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


def plain_array(values: Any) -> np.ndarray:
    """Lists, arrays and tensors as an array: what a mask hides is missing, tensors of any device, precision and with
    a gradient. None (and pandas' NA) among numbers is NaN, decimals are floats."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.dtype.itemsize < 4 else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        if values.dtype.kind in "fiub":
            return np.where(np.ma.getmaskarray(values), np.nan, values.data)
        labels = values.data.astype(object)
        labels[np.ma.getmaskarray(values)] = None
        return labels
    if isinstance(values, list | tuple) and any(isinstance(one, np.ma.MaskedArray) for one in values):
        values = [plain_array(one) for one in values]
    array = np.asarray(values)
    if array.dtype != object:
        return array
    flat = [None if type(value).__name__ == "NAType" else value for value in array.ravel().tolist()]
    if all(value is None or _is_number(value) for value in flat):
        return np.array([np.nan if value is None else float(value) for value in flat]).reshape(array.shape)
    return np.fromiter(flat, object, len(flat)).reshape(array.shape)


def _is_number(value: Any) -> bool:
    """A decimal is one, too, and no `numbers.Real`; a truth value is a label."""
    return isinstance(value, numbers.Number) and not isinstance(value, bool | complex)


def _values(name: str, values: Any, length: int, kind: str, of: str) -> np.ndarray:
    array = plain_array(values)
    if array.shape != (length,):
        raise ValueError(
            f"{kind} {name!r} has shape {array.shape}; {of} has {length} steps, so it must have shape ({length},)."
        )
    others = [value for value in array if not _is_label(value)] if array.dtype == object else []
    if array.dtype.kind in "mMcV" or others:
        found = type(others[0]).__name__ if others else array.dtype.name
        raise ValueError(
            f"{kind} {name!r} holds values of type {found}: give numbers, or labels as text. Of times make numbers "
            "(day of week ...)."
        )
    return array


def _is_label(value: Any) -> bool:
    """Text, a truth value, a number among them, or nothing."""
    return value is None or isinstance(value, str | bool | np.bool_ | numbers.Number) or bool(value != value)


def _is_numeric(values: np.ndarray) -> bool:
    return np.issubdtype(values.dtype, np.number)
