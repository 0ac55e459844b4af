"""What people hand to `Model.predict`, as `ForecastInput`s.

Axes: N inputs, V targets, L context steps, H horizon steps.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from foreloom.data.forecast_input import ForecastInput, forecast_input

_KEYS = ("target", "past_covariates", "future_covariates")


def as_forecast_inputs(inputs: Any, prediction_length: int) -> list[ForecastInput]:
    """`inputs` in any form that `Model.predict` documents; torch tensors on the CPU count as arrays.

    Raises ValueError naming the input (by its place) and what is wrong with it.
    """
    if isinstance(inputs, Mapping | ForecastInput):
        inputs = [inputs]
    elif not isinstance(inputs, list | tuple):
        inputs = _split_array(np.asarray(inputs))
    elif inputs and all(isinstance(value, int | float) for value in inputs):
        inputs = [inputs]
    if not len(inputs):
        raise ValueError("there is nothing to forecast: inputs is empty.")
    return _sound_rows(inputs, prediction_length) or [
        _one_input(entry, f"input {i}", prediction_length) for i, entry in enumerate(inputs)
    ]


def _split_array(array: np.ndarray) -> Sequence[np.ndarray]:
    if array.ndim not in (1, 2, 3):
        raise ValueError(
            f"an array of shape {array.shape} cannot be forecast. Give (L,) for one series, (N, L) for N series, or "
            "(N, V, L) for N series of V targets each; a list of arrays for series of different lengths."
        )
    return [array] if array.ndim == 1 else list(array)


def _sound_rows(rows: Sequence[Any], prediction_length: int) -> list[ForecastInput] | None:
    """Arrays (L,) of numbers, thousands as a rule, all at once; None for other forms and where one may be refused."""
    if not all(isinstance(row, np.ndarray) and row.ndim == 1 and row.dtype.kind in "fiu" and row.size for row in rows):
        return None
    with np.errstate(over="ignore"):
        values_1X = np.concatenate(rows).astype(np.float32, copy=False)[None]
    if np.isinf(values_1X).any():
        return None
    unknown_1H = np.full((1, prediction_length), np.nan, np.float32)
    ends = accumulate(map(len, rows))
    return [
        ForecastInput(values_1X[:, end - len(row) : end], unknown_1H, num_targets=1)
        for row, end in zip(rows, ends, strict=True)
    ]


def _one_input(entry: Any, where: str, prediction_length: int) -> ForecastInput:
    if isinstance(entry, ForecastInput):
        if entry.future_RH.shape[1] != prediction_length:
            raise ValueError(
                f"{where}: future_RH has {entry.future_RH.shape[1]} steps; the horizon has {prediction_length}."
            )
        return entry
    if not isinstance(entry, Mapping):
        return forecast_input(_target(entry, where), {}, {}, prediction_length)
    for key in entry:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Keys: {', '.join(_KEYS)}."
            raise ValueError(f"{where}: unknown key {key!r}. {hint}")
    if "target" not in entry:
        raise ValueError(f"{where}: the key 'target' is missing: the past values, (L,) or (V, L).")
    target_VL = _target(entry["target"], f"{where}, target")
    past, future = entry.get("past_covariates") or {}, entry.get("future_covariates") or {}
    future = {name: None if values is None or not len(values) else values for name, values in future.items()}
    try:
        return forecast_input(target_VL, past, future, prediction_length)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _target(values: Any, where: str) -> np.ndarray:
    """(V, L) float32; text, ragged rows, infinities and empty contexts are refused."""
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected numbers of shape (L,) or (V, L): {error}.") from None
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{where}: expected numbers of shape (L,) or (V, L), got shape {array.shape}.")
    if np.isinf(array).any():
        step = int(np.argwhere(np.isinf(array))[0, -1])
        raise ValueError(f"{where}: step {step} is infinite, or beyond float32 (3.4e38); use NaN for missing.")
    return array if array.ndim == 2 else array[None]
