"""What people hand to `Model.predict`, as `ForecastInput`s.

Axes: N inputs, V targets, L context steps, H horizon steps.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from foreloom.data.forecast_input import ForecastInput, forecast_input, plain_array
from foreloom.forecast.telling import warn_user

_KEYS = ("target", "past_covariates", "future_covariates")


def as_forecast_inputs(inputs: Any, prediction_length: int) -> list[ForecastInput]:
    """`inputs` in any form that `Model.predict` documents.

    Raises ValueError naming the input (by its place) and what is wrong with it, TypeError for frames and paths. Warns
    of inputs without a value.
    """
    _refuse_tables(inputs, "inputs")
    if isinstance(inputs, Mapping | ForecastInput):
        inputs = [inputs]
    elif not isinstance(inputs, list | tuple):
        inputs = _split_array(plain_array(inputs))
    elif inputs and all(_is_step(value) for value in inputs):
        inputs = [inputs]
    if not len(inputs):
        raise ValueError("there is nothing to forecast: inputs is empty.")
    made = _sound_rows(inputs, prediction_length) or [
        _one_input(entry, f"input {i}", prediction_length) for i, entry in enumerate(inputs)
    ]
    is_empty = [np.isnan(one.context_RC[: one.num_targets]).all(axis=1) for one in made]
    for found, what in (
        ([i for i, is_V in enumerate(is_empty) if is_V.all()], "no value: there is nothing to forecast from"),
        (
            [i for i, is_V in enumerate(is_empty) if is_V.any() and not is_V.all()],
            "a target without a value: there is nothing to forecast it from",
        ),
    ):
        if found:
            others = f" and {len(found) - 1} more have" if len(found) > 1 else " has"
            warn_user(f"input {found[0]}{others} {what}.")
    return made


def _refuse_tables(value: Any, where: str) -> None:
    """A frame is no array of series, though numpy would make one of it; nor is a path."""
    is_path = isinstance(value, str | Path)
    if is_path or (hasattr(value, "columns") and not isinstance(value, Mapping)):
        raise TypeError(
            f"{where} is a {'path' if is_path else 'frame'}: predict takes arrays of values. A table with a row a "
            "series and time step is forecast by predict_df, a file by foreloom.forecast.forecast_file or the command "
            "line."
        )


def _is_step(value: Any) -> bool:
    """A single value, of which a list is one series; one that is no number is refused as that."""
    return isinstance(value, str) or not (hasattr(value, "__len__") or isinstance(value, ForecastInput))


def _split_array(array: np.ndarray) -> Sequence[np.ndarray]:
    if array.ndim not in (1, 2, 3):
        raise ValueError(
            f"an array of shape {array.shape} cannot be forecast. Give (L,) for one series, (N, L) for N series, or "
            "(N, V, L) for N series of V targets each; a list of arrays for series of different lengths."
        )
    return [array] if array.ndim == 1 else list(array)


def _sound_rows(rows: Sequence[Any], prediction_length: int) -> list[ForecastInput] | None:
    """Arrays (L,) of numbers, thousands as a rule, all at once; None for other forms and where one may be refused."""
    if not all(type(row) is np.ndarray and row.ndim == 1 and row.dtype.kind in "fiu" and row.size for row in rows):
        return None
    values_1X = _floats(np.concatenate(rows))[None]
    if _is_beyond(values_1X).any():
        return None
    unknown_1H = np.full((1, prediction_length), np.nan, values_1X.dtype)
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
    _refuse_tables(entry, where)
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
    for key, given in (("past_covariates", past), ("future_covariates", future)):
        if not isinstance(given, Mapping):
            raise ValueError(f"{where}: {key} is of type {type(given).__name__}; write {{name: values}}.")
    future = {name: None if values is None or not len(values) else values for name, values in future.items()}
    try:
        return forecast_input(target_VL, past, future, prediction_length)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _target(values: Any, where: str) -> np.ndarray:
    """(V, L) float32 or float64; text, times, ragged rows, infinities and empty contexts are refused."""
    expected = "expected numbers of shape (L,) or (V, L)"
    try:
        array = plain_array(values)
        if array.dtype.kind in "mMcV":
            raise ValueError(f"they are of type {array.dtype.name}")
        array = _floats(array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {expected}: {error}.") from None
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{where}: {expected}, got shape {array.shape}.")
    if _is_beyond(array).any():
        step = int(np.argwhere(_is_beyond(array))[0, -1])
        raise ValueError(f"{where}: step {step} is infinite, or beyond float32 (3.4e38); use NaN for missing.")
    return array if array.ndim == 2 else array[None]


def _floats(array: np.ndarray) -> np.ndarray:
    """float32 as it is, else float64."""
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _is_beyond(array: np.ndarray) -> np.ndarray:
    """Where float32, which models read, has no number."""
    with np.errstate(over="ignore"):
        return np.isinf(array.astype(np.float32, copy=False))
