"""Is a contender better than the model as it was? Ratios of paired errors, with bootstrap intervals.

Axes: S rows (one target of one window), W windows of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreloom.evaluation.backtest import Backtest
from foreloom.evaluation.skill import FEWEST_TASKS, bootstrap

CONFIDENCE = 0.9
SHARE_BETTER = 0.75
"""Of the windows of time, in which a contender must have less error: what happens at a time happens to all series, of
which their rows, drawn one by one, know nothing."""
FEWEST_FOR_A_LINE = 3
"""Windows of time, through whose ratios a line is drawn to the one to come."""
METRIC = "SQL"
"""The quantile loss over the seasonal error, so that every series counts alike; of single values it is MASE."""


@dataclass(frozen=True)
class Ratio:
    """Mean error over that of the base on the same rows: below 1 is better. NaN where nothing can be told."""

    estimate: float
    lower: float
    upper: float
    num_rows: int
    share_better: float = 1.0
    """Of the windows of time, in which the error is less than the base's."""
    to_come: float = 0.0
    """What a line through the logs of the ratios of the windows of time says of the next one; 0 where they are too
    few for a line."""

    @property
    def is_sure(self) -> bool:
        """Is the whole interval on the better side, in most windows of time too?"""
        return self.upper < 1 and self.share_better >= SHARE_BETTER

    def __str__(self) -> str:
        if self.num_rows < FEWEST_TASKS:
            return f"{self.estimate:.3f} ({self.num_rows} windows, too few for an interval)"
        return f"{self.estimate:.3f} ({self.lower:.3f} to {self.upper:.3f})"


def row_errors(kept: Backtest, model: str) -> np.ndarray:
    """`METRIC` of every row, (S,); NaN for one without labels or without a scale."""
    return np.array([kept.sums(model, np.array([s])).scores()[METRIC] for s in range(len(kept.item_S))])


def ratio(ours_S: np.ndarray, base_S: np.ndarray, window_S: np.ndarray | None = None) -> Ratio:
    """Of the rows that both have, drawn anew with repetition; `window_S` says of which window of time each is (default:
    all of one)."""
    known_S = np.isfinite(ours_S) & np.isfinite(base_S)
    error_S2 = np.stack([ours_S[known_S], base_S[known_S]], axis=1)
    if not len(error_S2) or not error_S2[:, 1].sum():
        return Ratio(np.nan, np.nan, np.nan, len(error_S2))

    def over_base(error: np.ndarray) -> np.ndarray:
        mean = error.mean(axis=0)
        return mean / mean[1:]

    found = bootstrap(error_S2, over_base, confidence=CONFIDENCE)
    window_S = np.zeros(len(known_S)) if window_S is None else window_S
    _, number_S = np.unique(window_S[known_S], return_inverse=True)
    ours_W, base_W = (np.bincount(number_S, weights=error_S) for error_S in error_S2.T)
    estimate, lower, upper = (float(one[0]) for one in (found.estimate, found.lower, found.upper))
    return Ratio(estimate, lower, upper, len(error_S2), float((ours_W < base_W).mean()), _to_come(ours_W, base_W))


def _to_come(ours_W: np.ndarray, base_W: np.ndarray) -> float:
    if len(ours_W) < FEWEST_FOR_A_LINE or not (ours_W.all() and base_W.all()):
        return 0.0
    slope, level = np.polyfit(np.arange(len(ours_W)), np.log(ours_W / base_W), deg=1)
    return float(np.exp(level + slope * len(ours_W)))


def best_of(ratios: Mapping[str, Ratio]) -> str | None:
    """The contender with the lowest ratio among those that are surely better than the base; None where none is."""
    sure = {name: one.estimate for name, one in ratios.items() if one.is_sure}
    return min(sure, key=lambda name: sure[name]) if sure else None


def first_that_holds(ratios: Mapping[str, Ratio]) -> str | None:
    """The first contender that is surely better than the base here, too; of rows too few for an interval the mean must
    do. In most windows of time, as well, and not on its way to being worse: what was better on the mean of some and
    grew worse from one to the next will be worse on the one to come. None where there is none."""
    for name, one in ratios.items():
        is_better = one.upper < 1 or (one.num_rows < FEWEST_TASKS and one.estimate < 1)
        if is_better and one.share_better >= SHARE_BETTER and one.to_come < 1:
            return name
    return None
