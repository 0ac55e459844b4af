"""A calibration of a forecaster's quantiles, made of the older windows of a data set and tried on the newest.

Axes: S rows (one target of one window), H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foreloom.data.source import Source
from foreloom.evaluation.backtest import Backtest, backtest, rolling_task
from foreloom.evaluation.metrics import central_intervals
from foreloom.models.calibration import LEVELS, Calibration, local_scale
from foreloom.models.family import Forecaster
from foreloom.monitoring.progress import Progress

PERCENTS = (50, 80, 90)
FORECASTER = "forecaster"


@dataclass(frozen=True)
class Trial:
    """A calibration and what it did on windows later than those that it was made of."""

    calibration: Calibration
    rows: Sequence[Mapping[str, Any]]
    """A row a central band: `band` (percent), `coverage` and `coverage_calibrated`, `width` and `width_calibrated` (the
    mean, in seasonal errors)."""
    num_windows: int
    """That it was tried on."""
    notes: Sequence[str]

    def __repr__(self) -> str:
        lines = [
            f"{row['band']} %: coverage {row['coverage']:.1%} -> {row['coverage_calibrated']:.1%}, "
            f"width {row['width']:.3g} -> {row['width_calibrated']:.3g}"
            for row in self.rows
        ]
        return "\n".join([f"tried on {self.num_windows:,} windows", *lines, *(f"note: {note}" for note in self.notes)])


def calibrate(
    forecaster: Forecaster,
    source: Source,
    prediction_length: int,
    windows: int = 8,
    *,
    step: int | None = None,
    batch_size: int = 256,
    context_length: int = 0,
    progress: Callable[[str], Progress] | None = None,
) -> Trial:
    """Of the last `windows` windows of every series the newest quarter tries what the older ones make.

    ValueError where there are too few values for a calibration, or none to try it on.
    """
    assert windows >= 2
    task = rolling_task(source, prediction_length, windows, step=step, levels=LEVELS, context_length=context_length)
    kept = backtest({FORECASTER: forecaster}, task, batch_size=batch_size, progress=progress)
    newest = max(windows // 4, 1)
    is_held_out_S = kept.window_S >= windows - newest
    if is_held_out_S.all():
        raise ValueError(
            f"{source.name}: no series holds more than one window of {prediction_length:,} steps, and a calibration is "
            "made of the older ones and tried on the newest. Shorten the horizon."
        )
    forecast_SHQ, levels = kept.forecast_SHQ[FORECASTER], list(task.asked_levels)
    unit_SH = _scales(forecaster, kept, source, context_length or forecaster.context_length)
    facts = {"data": source.name, "prediction_length": prediction_length, "windows": windows - newest}
    made = [part[~is_held_out_S] for part in (forecast_SHQ, unit_SH, kept.label_SH)]
    calibration = Calibration.fit(made[0], levels, made[1], made[2], facts)
    before, label_SH, scale_S = (part[is_held_out_S] for part in (forecast_SHQ, kept.label_SH, kept.scale_S))
    after = calibration.apply(before, levels, unit_SH[is_held_out_S])
    rows = []
    for percent, lower, upper in central_intervals(levels):
        if percent in PERCENTS:
            row: dict[str, Any] = {"band": percent}
            for name, forecast in (("", before), ("_calibrated", after)):
                low_SH, high_SH = forecast[..., lower], forecast[..., upper]
                row[f"coverage{name}"] = _share((low_SH <= label_SH) & (label_SH <= high_SH), np.isfinite(label_SH))
                row[f"width{name}"] = _mean_ratio(high_SH - low_SH, scale_S)
            rows.append(row)
    told = {f"coverage_{row['band']}": [row["coverage"], row["coverage_calibrated"]] for row in rows}
    calibration = replace(calibration, facts={**calibration.facts, "held_out": told})
    return Trial(calibration, rows, int(is_held_out_S.sum()), [*kept.notes, *_doubts(rows)])


def _scales(forecaster: Forecaster, kept: Backtest, source: Source, context_length: int) -> np.ndarray:
    """(S, H)."""
    forecast_SHQ, levels = kept.forecast_SHQ[FORECASTER], kept.task.asked_levels
    if len(forecaster.quantile_levels) > 1:
        return local_scale(forecast_SHQ, levels, np.empty((0, 0)))
    unit_SH = np.empty(kept.label_SH.shape)
    for s, (item, target, cut) in enumerate(zip(kept.item_S, kept.target_S, kept.cut_S, strict=True)):
        context_VL = source.read(int(item)).target_VT[target : target + 1, max(cut - context_length, 0) : cut]
        unit_SH[s] = local_scale(forecast_SHQ[s : s + 1], (0.5,), context_VL)
    return unit_SH


def _share(covered_SH: np.ndarray, known_SH: np.ndarray) -> float:
    return float(covered_SH[known_SH].mean()) if known_SH.any() else float("nan")


def _mean_ratio(width_SH: np.ndarray, scale_S: np.ndarray) -> float:
    has_scale_S = np.nan_to_num(scale_S) > 0
    return float((width_SH[has_scale_S] / scale_S[has_scale_S, None]).mean()) if has_scale_S.any() else float("nan")


def _doubts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where bands that were calibrated are farther from what they say than those that were not."""
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
