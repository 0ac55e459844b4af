"""One thing to forecast as rows of numbers: targets, then covariates, with categories turned into numbers.

Axes: V targets, L context steps, H horizon steps, R rows. Encodings are Chronos-2's (chronos-forecasting 2.3): a
category's smoothed mean of the target where there is one target, its ordinal where there are several.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from foreloom.data.windows import ForecastInput


def forecast_input(
    target_VL: np.ndarray,
    past: Mapping[str, Any],
    future: Mapping[str, Any],
    prediction_length: int,
) -> ForecastInput:
    """The rows of one group: targets, covariates known over the past only, covariates known ahead (names sorted).

    `past` holds every covariate over the past, (L,) each; `future` those known ahead, (H,) each, or None for values
    not at hand. Numbers stay as they are; anything else, booleans included, is a category. Raises ValueError with the
    covariate's name for lengths that do not fit and for a `future` name that `past` lacks.
    """
    length = target_VL.shape[-1]
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
    context_RL = np.empty((len(target_VL) + len(names), length), dtype=np.float32)
    future_RH = np.full((len(context_RL), prediction_length), np.nan, dtype=np.float32)
    context_RL[: len(target_VL)] = target_VL
    for row, name in enumerate(names, start=len(target_VL)):
        past_L = _values(name, past[name], length, "past covariate", "the target")
        future_H = None
        if future.get(name) is not None:
            future_H = _values(name, future[name], prediction_length, "future covariate", "the horizon")
        if not _is_numeric(past_L) or (future_H is not None and not _is_numeric(future_H)):
            past_L, future_H = encode_categories(target_VL, past_L, future_H)
        context_RL[row] = past_L
        if future_H is not None:
            future_RH[row] = future_H
    return ForecastInput(context_RL, future_RH, len(target_VL), len(past) - len(future), len(future))


def encode_categories(
    target_VL: np.ndarray, past_L: np.ndarray, future_H: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Categories as float64, fitted on the past alone.

    One target: (mean + sum) / (1 + count) over the category's observed targets, `mean` that of the series; a category
    unseen in the past gets `mean`. Several targets: the category's place in sorted order, unseen is NaN. Missing
    (None or NaN) is a category of its own, the last.
    """
    past_labels, missing_L = _labels(past_L)
    categories, code_L = np.unique(past_labels[~missing_L], return_inverse=True)
    past_code_L = np.full(len(past_labels), len(categories))
    past_code_L[~missing_L] = code_L
    unseen = len(categories) + 1  # one place after "missing"
    if len(target_VL) == 1:
        target_L = np.asarray(target_VL[0], dtype=np.float64)
        observed_L = np.isfinite(target_L)
        mean = target_L[observed_L].mean() if observed_L.any() else np.nan
        codes, values = past_code_L[observed_L], target_L[observed_L]
        sums = np.bincount(codes, weights=values, minlength=unseen + 1)
        counts = np.bincount(codes, minlength=unseen + 1)
        table = (mean + sums) / (1 + counts)
    else:
        table = np.arange(unseen + 1, dtype=np.float64)
        table[unseen] = np.nan
        if not missing_L.any():
            table[len(categories)] = np.nan
    if future_H is None:
        return table[past_code_L], None
    future_labels, missing_H = _labels(future_H)
    place_H = np.searchsorted(categories, future_labels)
    known_H = place_H < len(categories)
    known_H[known_H] = categories[place_H[known_H]] == future_labels[known_H]
    future_code_H = np.where(known_H, place_H, unseen)
    future_code_H[missing_H] = len(categories)
    return table[past_code_L], table[future_code_H]


def _values(name: str, values: Any, length: int, kind: str, of: str) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (length,):
        raise ValueError(
            f"{kind} {name!r} has shape {array.shape}; {of} has {length} steps, so it must have shape ({length},)."
        )
    return array


def _is_numeric(values: np.ndarray) -> bool:
    return np.issubdtype(values.dtype, np.number)


def _labels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values as text, and which are missing."""
    if values.dtype.kind in "US":
        return values.astype(str), np.zeros(len(values), dtype=bool)
    missing = np.array([v is None or v != v for v in values.tolist()], dtype=bool)
    return np.array(["" if gone else str(v) for v, gone in zip(values.tolist(), missing, strict=True)], str), missing
