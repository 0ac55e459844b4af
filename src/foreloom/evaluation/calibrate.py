"""A calibration of a forecaster's quantiles, made of the older windows of a data set and tried on the newest.

Axes: S rows (one target of one window), H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from foreloom.data.source import Source
from foreloom.evaluation.backtest import Backtest, backtest, rolling_task
from foreloom.evaluation.metrics import central_intervals
from foreloom.models.calibration import LEVELS, Calibration, is_flat, local_scale
from foreloom.models.family import Forecaster
from foreloom.monitoring.progress import Progress

PERCENTS = (50, 80, 90)
FORECASTER = "forecaster"
MOST_WIDENED = 10.0
"""Times: bands that a calibration makes wider are of little use, and come from windows unlike most."""


@dataclass(frozen=True)
class Trial:
    """A calibration and what it did on windows later than those that it was made of."""

    calibration: Calibration
    rows: Sequence[Mapping[str, Any]]
    """A row a central band: `band` (percent), `coverage` and `coverage_calibrated`, its `standard_error` (by how much
    that of so few windows is off by chance), `width` and `width_calibrated` (the mean, in seasonal errors)."""
    num_windows: int
    """That it was tried on."""
    notes: Sequence[str]

    def __repr__(self) -> str:
        lines = [
            f"{row['band']} %: coverage {row['coverage']:.1%} -> {row['coverage_calibrated']:.1%} "
            f"(standard error {row['standard_error']:.1%}), width {row['width']:.3g} -> {row['width_calibrated']:.3g}"
            for row in self.rows
        ]
        return "\n".join([f"tried on {self.num_windows:,} windows", *lines, *(f"note: {note}" for note in self.notes)])


def calibrate(
    forecaster: Forecaster,
    source: Source,
    prediction_length: int,
    windows: int = 24,
    *,
    step: int | None = None,
    batch_size: int = 256,
    context_length: int = 0,
    progress: Callable[[str], Progress] | None = None,
) -> Trial:
    """Of the last `windows` windows of every series the newest quarter tries what the older ones make.

    Windows that share steps with the newest make nothing. ValueError where there are too few values for a calibration,
    or none to try it on.
    """
    assert windows >= 2
    task = rolling_task(source, prediction_length, windows, step=step, levels=LEVELS, context_length=context_length)
    kept = backtest({FORECASTER: forecaster}, task, batch_size=batch_size, progress=progress)
    is_held_out_S = _is_newest(kept.window_S)
    if is_held_out_S.all():
        raise ValueError(
            f"{source.name}: no series holds more than one window of {prediction_length:,} steps, and a calibration is "
            "made of the older ones and tried on the newest. Shorten the horizon."
        )
    if not np.isfinite(kept.label_SH[is_held_out_S]).any():
        newest = len(np.unique(kept.window_S[is_held_out_S]))
        where = f"the newest {newest:,} windows of each series hold" if newest > 1 else "the newest windows hold"
        raise ValueError(
            f"{source.name}: {where} no value, and a calibration is tried on them. Leave out the steps that nothing is "
            "known of, or ask for more windows (--windows)."
        )
    stride, first_newest = task.roll_stride, int(kept.window_S[is_held_out_S].min())
    makes_S = kept.window_S <= first_newest - math.ceil(prediction_length / stride)
    if not makes_S.any():
        raise ValueError(
            f"{source.name}: of windows that lie {stride:,} steps apart none is {prediction_length:,} steps, the "
            "horizon, older than those that a calibration is tried on. Ask for more windows (--windows) or have them "
            "farther apart (--step)."
        )
    forecast_SHQ, levels = kept.forecast_SHQ[FORECASTER], list(task.asked_levels)
    contexts = partial(_contexts, kept, source, context_length or forecaster.context_length)
    unit_SH = _scales(forecaster, kept, contexts())
    # A model is sure of what never moved, and what does move then is any number of such bands away.
    is_flat_S = np.array([is_flat(one) for one in contexts()])
    label_SH = np.where(is_flat_S[:, None], np.nan, kept.label_SH)
    num_older = len(np.unique(kept.window_S[makes_S]))
    facts = {"data": source.name, "prediction_length": prediction_length, "windows": num_older}
    made = [part[makes_S] for part in (forecast_SHQ, unit_SH, label_SH)]
    draws = num_apart(num_older, stride, prediction_length) if len(forecaster.quantile_levels) > 1 else None
    calibration = Calibration.fit(made[0], levels, made[1], made[2], facts, draws)
    after_SHQ = calibration.apply(forecast_SHQ, levels, unit_SH)
    bands = [band for band in central_intervals(levels) if band[0] in PERCENTS]
    rows = [_row(kept, is_held_out_S, forecast_SHQ, after_SHQ, *band) for band in bands]
    told = {f"coverage_{row['band']}": [row["coverage"], row["coverage_calibrated"]] for row in rows}
    calibration = replace(calibration, facts={**calibration.facts, "held_out": told})
    num_flat, num_between = int((is_flat_S & makes_S).sum()), int((~makes_S & ~is_held_out_S).sum())
    notes = [f"{num_flat:,} older windows do not count: what they were forecast from is flat."] if num_flat else []
    if num_between:
        notes.append(f"{num_between:,} windows make nothing: they share steps with those that it is tried on.")
    return Trial(calibration, rows, int(is_held_out_S.sum()), [*kept.notes, *notes, *_doubts(rows)])


def num_apart(num_windows: int, stride: int, prediction_length: int) -> int:
    """As many windows side by side as fit where `num_windows` lie `stride` steps apart: those that share steps are no
    draws of their own."""
    return ((num_windows - 1) * min(stride, prediction_length) + prediction_length) // prediction_length


def _is_newest(window_S: np.ndarray) -> np.ndarray:
    """bool (S,): of the newest windows, as many as hold a quarter of the rows at most, or of the newest alone. Windows
    that do not fit into short series are missing among the older ones."""
    held_W = np.cumsum(np.bincount(window_S)[::-1])
    num_newest = max(int((held_W <= len(window_S) / 4).sum()), 1)
    return window_S > window_S.max() - num_newest


def _row(
    kept: Backtest,
    is_held_out_S: np.ndarray,
    before_SHQ: np.ndarray,
    after_SHQ: np.ndarray,
    percent: int,
    lower: int,
    upper: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {"band": percent}
    known_SH, scale_S = np.isfinite(kept.label_SH), kept.scale_S[is_held_out_S]
    covered_SH = known_SH
    for name, forecast_SHQ in (("", before_SHQ), ("_calibrated", after_SHQ)):
        low_SH, high_SH = forecast_SHQ[..., lower], forecast_SHQ[..., upper]
        covered_SH = (low_SH <= kept.label_SH) & (kept.label_SH <= high_SH)
        row[f"coverage{name}"] = _share(covered_SH[is_held_out_S], known_SH[is_held_out_S])
        row[f"width{name}"] = _mean_ratio((high_SH - low_SH)[is_held_out_S], scale_S)
    # Of the calibrated bands, over all windows: the newest alone are too few to tell how much windows differ.
    num_newest = len(np.unique(kept.window_S[is_held_out_S & known_SH.any(axis=1)]))
    num_draws = num_apart(num_newest, kept.task.roll_stride, known_SH.shape[1])
    row["standard_error"] = _spread(covered_SH, known_SH, kept.window_S) / math.sqrt(num_draws)
    return row


def _contexts(kept: Backtest, source: Source, context_length: int) -> Iterator[np.ndarray]:
    """What was forecast from, (1, L) a row."""
    for item, target, cut in zip(kept.item_S, kept.target_S, kept.cut_S, strict=True):
        yield source.read(int(item)).target_VT[target : target + 1, max(cut - context_length, 0) : cut]


def _scales(forecaster: Forecaster, kept: Backtest, context_S: Iterator[np.ndarray]) -> np.ndarray:
    """(S, H)."""
    forecast_SHQ, levels = kept.forecast_SHQ[FORECASTER], kept.task.asked_levels
    if len(forecaster.quantile_levels) > 1:
        return local_scale(forecast_SHQ, levels, np.empty((0, 0)))
    of_row = [local_scale(one[None], (0.5,), context) for one, context in zip(forecast_SHQ, context_S, strict=True)]
    return np.concatenate(of_row)


def _spread(covered_SH: np.ndarray, known_SH: np.ndarray, window_S: np.ndarray) -> float:
    """Standard deviation of a window's coverage, weighted by known labels; NaN for one window. Series of one date err
    together, so a window is one draw however many series it has."""
    known_W = np.bincount(window_S, known_SH.sum(axis=1))
    covered_W = np.bincount(window_S, (covered_SH & known_SH).sum(axis=1))[known_W > 0]
    known_W = known_W[known_W > 0]
    weight_W = known_W / known_W.sum()
    square = float(weight_W @ (covered_W / known_W - weight_W @ (covered_W / known_W)) ** 2)
    freedom = 1 - float(weight_W @ weight_W)
    return math.sqrt(square / freedom) if freedom > 0 else float("nan")


def _share(covered_SH: np.ndarray, known_SH: np.ndarray) -> float:
    return float(covered_SH[known_SH].mean()) if known_SH.any() else float("nan")


def _mean_ratio(width_SH: np.ndarray, scale_S: np.ndarray) -> float:
    has_scale_S = np.nan_to_num(scale_S) > 0
    return float((width_SH[has_scale_S] / scale_S[has_scale_S, None]).mean()) if has_scale_S.any() else float("nan")


def _doubts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where bands that were calibrated are too wide to be of use, or farther from what they say than before."""
    wide = [
        f"the {row['band']} % band is {row['width_calibrated'] / row['width']:,.0f} times as wide as it was: in some "
        "older windows the model was sure, as after a long stretch of zeros, and wrong by that many of its own bands. "
        "Calibrate without those series or stretches."
        for row in rows
        if row["width_calibrated"] > MOST_WIDENED * row["width"] > 0
    ]
    return [*wide[-1:], *_farther(rows)]


def _farther(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    worse = [
        str(row["band"])
        for row in rows
        if abs(row["coverage_calibrated"] - row["band"] / 100) > abs(row["coverage"] - row["band"] / 100) + 0.01
    ]
    if not worse:
        return []
    bands = f"bands of {', '.join(worse[:-1])} and {worse[-1]} % are" if len(worse) > 1 else f"{worse[0]} % band is"
    return [
        f"on the newest windows the {bands} farther from what was said than without the calibration: these windows are "
        "unlike the older ones, or too few to tell. More windows tell more."
    ]
