"""Normalisation: values brought to zero mean and unit deviation, or to magnitude one, for models that do not scale.

Axes: R rows, T steps, C context, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from foreloom.data.series import Source

Normalization = Literal["none", "zero", "max"]

_RESOLUTION = float(np.finfo(np.float32).eps)
"""Deviations smaller than this share of the largest magnitude are lost when a model reads float32."""


def center_and_scale(values_RT: np.ndarray, normalization: Normalization) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract from each row and what to divide it by then, float64 (R,) each.

    "zero": mean and standard deviation (ddof 0); "max": 0 and the largest magnitude. Missing and infinite values do not
    count. Rows without an observed value get 0 and 1; constant rows are centred only, and so are rows whose deviation
    is too small for float32 to tell it from rounding.
    """
    observed_RT = np.isfinite(values_RT)
    clean_RT = np.where(observed_RT, values_RT, 0.0).astype(np.float64, copy=False)
    largest_R = np.abs(clean_RT).max(axis=1, initial=0.0)
    if normalization == "none":
        return np.zeros(len(values_RT)), np.ones(len(values_RT))
    if normalization == "max":
        return np.zeros(len(values_RT)), np.where(largest_R > 0, largest_R, 1.0)
    count_R = np.maximum(observed_RT.sum(axis=1), 1)
    # Divided first, so that sums of values and of squares near the largest float64 stay finite.
    unit_R = np.where(largest_R > 0, largest_R, 1.0)
    clean_RT = clean_RT / unit_R[:, None]
    mean_R = clean_RT.sum(axis=1) / count_R
    square_RT = np.where(observed_RT, clean_RT - mean_R[:, None], 0.0) ** 2
    deviation_R = np.sqrt(square_RT.sum(axis=1) / count_R)
    return mean_R * unit_R, np.where(deviation_R > _RESOLUTION, deviation_R * unit_R, 1.0)


class SeriesScales:
    """Centre and scale of every row of every series of some sources, computed when a series is first asked for.

    Statistics are those of a window's context that holds all the steps before the series' holdout (`num_steps[source]
    [item]` of them). They are kept, so the cost of a window does not grow with the length of its series.
    """

    def __init__(self, sources: Sequence[Source], num_steps: Sequence[np.ndarray], normalization: Normalization):
        self._sources = sources
        self._num_steps = num_steps
        self._normalization = normalization
        self._first_row = [np.concatenate([[0], np.cumsum(source.num_rows, dtype=np.int64)]) for source in sources]
        # Pages of zeros cost nothing before they are written; a scale of 0 is one not yet computed.
        self._center = [np.zeros(first_row[-1]) for first_row in self._first_row]
        self._scale = [np.zeros(first_row[-1]) for first_row in self._first_row]

    def of(self, source: int, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Centre and scale, float64 (rows of the series,)."""
        begin, end = self._first_row[source][item : item + 2]
        center_R, scale_R = self._center[source][begin:end], self._scale[source][begin:end]
        if not scale_R.all():
            num_steps = int(self._num_steps[source][item])
            values_RT = np.full((end - begin, num_steps), np.nan)
            self._sources[source].fill_window(item, num_steps, values_RT, values_RT[:, :0])
            # The scale last: where it is set, another thread may already read both.
            found = center_and_scale(values_RT, self._normalization)
            center_R[:], scale_R[:] = found
        return center_R, scale_R
