"""Quantiles moved until they hold what they say: a conformal calibration, kept beside a model's weights.

Conformalized quantile regression (Romano, Patterson and Candès 2019), level by level and, where data suffice, step by
step: to a forecast at level p is added the p-quantile of what it was short by on windows that the model did not learn
from, in units of the local scale. Series of one date err together, so the windows are few draws however many series
there are, and the forecast itself counts as one more, which needed no shift. The median stays, but where its
neighbours, once moved, leave it outside.

Axes: V targets, H horizon steps, Q quantile levels, S rows (a target of a window each), G groups of steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.files import read_json, strict_json, write_text
from foreloom.models.family import Forecaster

CALIBRATION_FILE = "calibration.json"
LEVELS = tuple(round(number / 20, 2) for number in range(1, 20))
"""That are calibrated. Shifts of others are read between them, those beyond have the outermost."""
OUTER = (0.1, 0.9)
"""Half of what lies between is the local scale, of a model that has quantiles."""
INNER = (0.45, 0.5, 0.55)
"""The median and its neighbours."""
LEAST_LABELS = 100
"""That a calibration is made of."""
LABELS_OF_A_GROUP = 1000
"""Of steps of the horizon that have shifts of their own: the last twentieth, which an outer level hangs on, is 50."""
SCALE_STEPS = 512
"""Newest steps whose mean move is the local scale of a model of single values."""


@dataclass(frozen=True)
class Calibration:
    """By how much quantiles are moved, in units of the local scale."""

    levels: tuple[float, ...]
    """Ascending."""
    first_steps: tuple[int, ...]
    """The step of the horizon (from 0) with which each group of steps begins; the last group has no end."""
    shift_GQ: np.ndarray
    """float64."""
    facts: Mapping[str, Any]
    """What it was made of and what it did on held-out windows, for people."""

    @classmethod
    def fit(
        cls,
        forecast_SHQ: np.ndarray,
        levels: Sequence[float],
        unit_SH: np.ndarray,
        label_SH: np.ndarray,
        facts: Mapping[str, Any],
        num_windows: int | None = None,
    ) -> Calibration:
        """From forecasts at `LEVELS`, all of which `levels` hold, of windows and what came; NaN labels do not count.

        `num_windows`: those of one series, so many draws of time; None leaves shifts whole, as a model of single values
        needs them. ValueError for fewer than `LEAST_LABELS`.
        """
        known_SH = np.isfinite(label_SH) & (unit_SH > 0)
        num_labels, horizon = int(known_SH.sum()), label_SH.shape[1]
        if num_labels < LEAST_LABELS:
            raise ValueError(
                f"a calibration is made of {LEAST_LABELS} values at least, and these windows have "
                f"{num_labels:,} whose past moves: more windows (--windows), a longer horizon or more series give more."
            )
        num_groups = min(max(num_labels // LABELS_OF_A_GROUP, 1), horizon)
        edges = [round(number * horizon / num_groups) for number in range(num_groups + 1)]
        columns = [list(levels).index(level) for level in LEVELS]
        shift_GQ = np.zeros((num_groups, len(LEVELS)))
        for group, (begin, end) in enumerate(pairwise(edges)):
            part = (slice(None), slice(begin, end))
            known_X = known_SH[part]
            for q, (column, level) in enumerate(zip(columns, LEVELS, strict=True)):
                short_X = (label_SH[part] - forecast_SHQ[part][..., column])[known_X] / unit_SH[part][known_X]
                shift_GQ[group, q] = 0.0 if level == 0.5 else conformal_quantile(short_X, level)
        share = 1.0 if num_windows is None else num_windows / (num_windows + 1)
        return cls(LEVELS, tuple(edges[:-1]), share * shift_GQ, {**facts, "labels": num_labels})

    def apply(self, forecast_VHQ: np.ndarray, levels: Sequence[float], unit_VH: np.ndarray) -> np.ndarray:
        """Forecasts at ascending `levels`, 0.5 among them, moved and ascending."""
        group_H = np.searchsorted(self.first_steps, np.arange(forecast_VHQ.shape[1]), side="right") - 1
        shift_GQ = np.stack([np.interp(levels, self.levels, shift_Q) for shift_Q in self.shift_GQ])
        moved = forecast_VHQ + (unit_VH[..., None] * shift_GQ[group_H]).astype(forecast_VHQ.dtype)
        median = list(levels).index(0.5)
        others = np.sort(np.delete(moved, median, axis=-1), axis=-1)
        below, above = others[..., max(median - 1, 0)], others[..., min(median, others.shape[-1] - 1)]
        return np.insert(others, median, np.clip(forecast_VHQ[..., median], below, above), axis=-1)

    def write(self, folder: Path) -> None:
        """Beside the weights, whole or not at all."""
        values = {
            "method": "conformal quantiles",
            "levels": list(self.levels),
            "first_steps": list(self.first_steps),
            "shifts": self.shift_GQ.tolist(),
            "facts": dict(self.facts),
        }
        write_text(folder / CALIBRATION_FILE, json.dumps(strict_json(values), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Calibration | None:
        """That of a model folder, None where it has none. ValueError for a damaged one."""
        path = folder / CALIBRATION_FILE
        if not path.is_file():
            return None
        remedy = "Delete it to forecast without, or calibrate the model anew."
        values = read_json(path, remedy)
        try:
            shift_GQ = np.array(values["shifts"], dtype=np.float64)
            found = cls(tuple(values["levels"]), tuple(values["first_steps"]), shift_GQ, values["facts"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} is no calibration. {remedy}") from None
        is_sound = np.isfinite(shift_GQ).all() and shift_GQ.shape == (len(found.first_steps), len(found.levels))
        if not is_sound or found.first_steps[:1] != (0,) or list(found.levels) != sorted(set(found.levels)):
            raise ValueError(f"{path} is no calibration: its levels, steps and shifts do not fit. {remedy}")
        return found


def conformal_quantile(values_X: np.ndarray, level: float) -> float:
    """The value that the next one, exchangeable with these, is below with probability `level`, or a hair more above the
    median and less below it."""
    rank = (len(values_X) + 1) * level
    place = math.ceil(round(rank, 9)) if level > 0.5 else math.floor(round(rank, 9))
    return float(np.sort(values_X)[min(max(place, 1), len(values_X)) - 1])


def local_scale(forecast_VHQ: np.ndarray, levels: Sequence[float], context_VL: np.ndarray) -> np.ndarray:
    """(V, H), what shifts are counted in: half the width between the outer quantiles or, for a model of single values,
    the mean move from one step of the context to the next."""
    if len(levels) == 1:
        return np.repeat(mean_move(context_VL)[:, None], forecast_VHQ.shape[1], axis=1)
    low, high = (forecast_VHQ[..., list(levels).index(level)].astype(np.float64) for level in OUTER)
    return np.abs(high - low) / 2  # of a model in its first steps they may cross


def mean_move(context_VL: np.ndarray) -> np.ndarray:
    """(V,), the mean |y_t - y_(t-1)| of the newest steps; 0 where there is none."""
    newest = np.asarray(context_VL[:, -SCALE_STEPS:], dtype=np.float64)
    move_VL = np.abs(np.diff(np.where(np.isfinite(newest), newest, np.nan), axis=-1))
    known_VL = np.isfinite(move_VL)
    return np.where(known_VL, move_VL, 0.0).sum(-1) / np.maximum(known_VL.sum(-1), 1)


def is_flat(context_VL: np.ndarray) -> bool:
    """Does nothing in it move by more than rounding, or is nothing known?"""
    known_X = context_VL[np.isfinite(context_VL)].astype(np.float64)
    return not len(known_X) or bool(np.ptp(known_X) <= 1e-12 * np.abs(known_X).max())


class CalibratedForecaster:
    """A forecaster whose quantiles are calibrated; one of single values has quantiles by it. See
    `models.family.Forecaster`."""

    def __init__(self, base: Forecaster, calibration: Calibration) -> None:
        self.base = base
        self.calibration = calibration
        self.quantile_levels = tuple(sorted({*base.quantile_levels, *calibration.levels}))
        self.context_length, self.prediction_length = base.context_length, base.prediction_length
        self.is_autoregressive, self.is_univariate = base.is_autoregressive, base.is_univariate
        if hasattr(base, "route"):  # an attribute: see `family.RoutedForecaster`
            self.route = base.route

    def predict_quantiles(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int,
        quantile_levels: Sequence[float],
        **options: Any,
    ) -> list[np.ndarray]:
        """Steps beyond the horizon that was calibrated are moved as its last ones."""
        is_point = len(self.base.quantile_levels) == 1
        levels = sorted({*quantile_levels, *INNER, *OUTER})
        asked = [0.5] if is_point else levels
        forecasts = self.base.predict_quantiles(inputs, prediction_length, asked, **options)
        chosen = [levels.index(level) for level in quantile_levels]
        calibrated = []
        for one, forecast_VHQ in zip(inputs, forecasts, strict=True):
            unit_VH = local_scale(forecast_VHQ, asked, one.context_RC[: one.num_targets])
            whole = np.repeat(forecast_VHQ, len(levels), axis=-1) if is_point else forecast_VHQ
            calibrated.append(self.calibration.apply(whole, levels, unit_VH)[..., chosen])
        return calibrated

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        return self.base.embed(inputs, batch_size=batch_size)

    def on_scaled_data(self) -> Forecaster:
        """Itself, where the base standardises its input. Else the base's: what is scored on scaled data is the median,
        and shifts are in units of forecasts in the data's own."""
        scaled = self.base.on_scaled_data()
        return self if scaled is self.base else scaled


def calibrated(forecaster: Forecaster, folder: Path) -> Forecaster:
    """The forecaster with the calibration that lies in its model's folder, or as it is."""
    calibration = Calibration.read(folder)
    return forecaster if calibration is None else CalibratedForecaster(forecaster, calibration)
