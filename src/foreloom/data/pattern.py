"""What a series looks like, by stated thresholds: for data whose series do not say of what kind they are.

Axes: L steps, T steps and room behind them, P phases of a period.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Pattern = Literal["trending", "seasonal", "both", "intermittent", "irregular", "constant"]

STRENGTH = 0.64
"""From this strength on there is a season, or a trend: where R's `forecast::nsdiffs` begins to take seasonal
differences."""
DEMAND_INTERVAL = 1.32
"""Mean steps from one value other than 0 to the next, from which on demand is intermittent (Syntetos, Boylan and
Croston 2005)."""
LONGEST_PERIOD = 366


def pattern_of(x_L: np.ndarray) -> Pattern:
    """The pattern of the values that are there (NaN is missing).

    Strengths are those of Hyndman and Athanasopoulos (Forecasting, 3rd edition, section 4.3), 1 - Var(R) / Var(part +
    R). The trend is a straight line; the season the mean of each phase of the period that explains most, any of 2 to
    366 steps, with three values a phase. Both are adjusted for what they would explain of noise. A random walk is
    mostly irregular by that.
    """
    seen_L = np.isfinite(x_L)
    value_L = np.where(seen_L, x_L, 0.0).astype(np.float64)
    if not seen_L.any() or np.ptp(value_L[seen_L]) == 0:
        return "constant"
    num_zeros = np.count_nonzero(value_L[seen_L] == 0)
    value_L = np.where(seen_L, value_L - value_L[seen_L].mean(), 0.0) / np.abs(value_L).max()
    _, season_L = _season(value_L - _line(value_L, seen_L), seen_L)
    rest_L = value_L - season_L
    line_L = _line(rest_L, seen_L)
    trend = _strength(_squares(rest_L - line_L, seen_L) / _squares(rest_L, seen_L), seen_L.sum(), 2)
    season, _ = _season(value_L - line_L, seen_L)
    if season >= STRENGTH:
        return "both" if trend >= STRENGTH else "seasonal"
    if seen_L.sum() >= DEMAND_INTERVAL * (seen_L.sum() - num_zeros):
        return "intermittent"
    return "trending" if trend >= STRENGTH else "irregular"


def _line(value_L: np.ndarray, seen_L: np.ndarray) -> np.ndarray:
    """The straight line of least squares through the values that are there."""
    step_L = np.arange(len(value_L)) - np.flatnonzero(seen_L).mean()
    slope = (step_L @ np.where(seen_L, value_L, 0.0)) / max((step_L**2) @ seen_L, 1)
    return value_L[seen_L].mean() + slope * step_L


def _season(value_L: np.ndarray, seen_L: np.ndarray) -> tuple[float, np.ndarray]:
    """Strength and course (L,), around 0, of the season whose period explains most of the values; 0 without any."""
    num_seen = int(seen_L.sum())
    value_L = np.where(seen_L, value_L - value_L[seen_L].mean(), 0.0)
    total = _squares(value_L, seen_L)
    longest = min(num_seen // 3, LONGEST_PERIOD)
    value_T, seen_T = (np.concatenate([x_L, np.zeros(longest)]) for x_L in (value_L, seen_L))
    strength, mean_P = 0.0, np.zeros(1)
    for period in range(2, longest + 1):
        num_steps = -(-len(value_L) // period) * period
        sum_P, count_P = (x_T[:num_steps].reshape(-1, period).sum(0) for x_T in (value_T, seen_T))
        means_P = sum_P / np.maximum(count_P, 1)
        found = _strength(1 - sum_P @ means_P / total, num_seen, period)
        if found > strength:
            strength, mean_P = found, means_P
    return strength, np.resize(mean_P, len(value_L))


def _strength(share_left: float, num_values: int, num_fitted: int) -> float:
    """1 - the share of the squares that a fit of so many numbers leaves, each divided by its degrees of freedom."""
    return 1 - share_left * (num_values - 1) / (num_values - num_fitted) if num_values > num_fitted else 0.0


def _squares(value_L: np.ndarray, seen_L: np.ndarray) -> float:
    """Around the mean, of the values that are there; never quite 0, to divide by."""
    return float(np.square(value_L[seen_L] - value_L[seen_L].mean()).sum()) + 1e-300
