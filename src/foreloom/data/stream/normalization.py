"""Normalisation: values brought to zero mean and unit deviation, or to magnitude one, for models that do not scale.

Axes: R rows, T steps, M series.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from foreloom.data.source import Source

Normalization = Literal["none", "zero", "max"]

_NOISE = 2.0**-44
"""Deviations smaller than this share of the largest magnitude are what float64 rounds, not what a series does."""
_MOST_LEVEL = 2.0**16
"""Deviations of a level beyond which float32, with its 24 bits, leaves fewer than 8 to what moves."""


def center_and_scale(values_RT: np.ndarray, normalization: Normalization) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract from each row and what to divide it by then, float64 (R,) each.

    "zero": mean and standard deviation (ddof 0); "max": 0 and the largest magnitude. Missing and infinite values do not
    count. Rows without an observed value get 0 and 1; constant rows are centred only, and so are rows whose deviation
    is no more than the rounding of float64.
    """
    if normalization == "none":
        return np.zeros(len(values_RT)), np.ones(len(values_RT))
    if normalization == "max":
        largest_R = np.abs(np.where(np.isfinite(values_RT), values_RT, 0.0)).max(axis=1, initial=0.0)
        return np.zeros(len(values_RT)), np.where(largest_R > 0, largest_R, 1.0)
    mean_R, deviation_R = _moments(values_RT)
    return mean_R, np.where(deviation_R > 0, deviation_R, 1.0)


def drowning_levels(values_RT: np.ndarray) -> np.ndarray:
    """What to subtract from each row before it becomes float32, float64 (R,): 0 but for rows whose deviations would be
    lost in their level (1e9, moving by 10), which get their mean. NaN is missing; constant rows keep their level."""
    mean_R, deviation_R = _moments(values_RT)
    return np.where((deviation_R > 0) & (np.abs(mean_R) > _MOST_LEVEL * deviation_R), mean_R, 0.0)


Float32Flaw = Literal["beyond", "blurred"]


def float32_flaws(values_RT: np.ndarray) -> set[Float32Flaw]:
    """What a model that reads float32 cannot know of these rows, even without their `drowning_levels`.

    "beyond": values above 3.4e38 are infinite there, and so missing. "blurred": half of a row's moves from one step to
    the next are smaller than eight of the steps of float32 at its largest value.
    """
    if values_RT.dtype == np.float32:
        return set()
    flaws: set[Float32Flaw] = set()
    values_RT = np.where(np.isfinite(values_RT), values_RT, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        if (np.isinf(values_RT.astype(np.float32))).any():
            flaws.add("beyond")
        for x_T in values_RT - drowning_levels(values_RT)[:, None]:
            x_T = x_T[~np.isnan(x_T)]
            if np.array_equal(x_T, x_T.astype(np.float32)):
                continue
            move_T = np.abs(np.diff(x_T))
            move_T = move_T[move_T > _NOISE * np.abs(x_T).max()]
            if len(move_T) and np.median(move_T) < 8 * np.abs(x_T).max() * np.finfo(np.float32).eps:
                flaws.add("blurred")
    return flaws


def _moments(values_RT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the finite values of each row, float64 (R,) each; a deviation of 0 where there is none."""
    observed_RT = np.isfinite(values_RT)
    clean_RT = np.where(observed_RT, values_RT, 0.0).astype(np.float64, copy=False)
    count_R = np.maximum(observed_RT.sum(axis=1), 1)
    # Divided first, so that sums of values and of squares near the largest float64 stay finite.
    unit_R = np.abs(clean_RT).max(axis=1, initial=0.0)
    unit_R = np.where(unit_R > 0, unit_R, 1.0)
    clean_RT = clean_RT / unit_R[:, None]
    mean_R = clean_RT.sum(axis=1) / count_R
    square_RT = np.where(observed_RT, clean_RT - mean_R[:, None], 0.0) ** 2
    deviation_R = np.sqrt(square_RT.sum(axis=1) / count_R)
    return mean_R * unit_R, np.where(deviation_R > _NOISE, deviation_R * unit_R, 0.0)


class SeriesScales:
    """Centre and scale of every row of every series of some sources, computed when a series is first asked for.

    Statistics are those of a window whose context is all of a series' steps before its holdout: `num_steps[source]
    [item]` of them. They are kept, so the cost of a window does not grow with the length of its series.
    """

    def __init__(self, sources: Sequence[Source], num_steps: Sequence[np.ndarray], normalization: Normalization):
        self._sources = sources
        self._num_steps = num_steps
        self._normalization = normalization
        self._first_series = np.cumsum([0, *map(len, sources)])
        num_rows = np.concatenate([source.num_rows for source in sources])
        self._first_row = np.concatenate([[0], np.cumsum(num_rows, dtype=np.int64)])
        # Pages of zeros cost nothing before they are written; a scale of 0 is one not yet computed.
        self._center = np.zeros(self._first_row[-1])
        self._scale = np.zeros(self._first_row[-1])

    def of(self, source_M: np.ndarray, item_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre and scale, float64 (R,) each, of all rows of M series, one series after the other."""
        series_M = self._first_series[source_M] + item_M
        first_M, end_M = self._first_row[series_M], self._first_row[series_M + 1]
        unknown_m = np.flatnonzero(self._scale[first_M] == 0)
        for member in unknown_m[np.unique(series_M[unknown_m], return_index=True)[1]]:
            self._compute(int(source_M[member]), int(item_M[member]), slice(first_M[member], end_M[member]))
        count_M = end_M - first_M
        row_R = np.repeat(end_M - np.cumsum(count_M), count_M) + np.arange(count_M.sum())
        return self._center[row_R], self._scale[row_R]

    def _compute(self, source: int, item: int, rows: slice) -> None:
        num_steps = int(self._num_steps[source][item])
        values_RT = np.full((rows.stop - rows.start, num_steps), np.nan)
        self._sources[source].fill_window(item, num_steps, values_RT, values_RT[:, :0])
        # The scale last: where another thread finds it, it finds both.
        self._center[rows], self._scale[rows] = center_and_scale(values_RT, self._normalization)
