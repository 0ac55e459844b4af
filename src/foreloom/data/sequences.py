"""Random access to the univariate sequences of a data set, as Time-MoE's users know it.

Axes: N sequences, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from foreloom.data.formats.reader import open_source
from foreloom.data.stream.normalization import Normalization, center_and_scale


class SequenceDataset:
    """The sequences of any data set `open_source` reads; a series of several target variates is as many sequences.

    `normalization` acts on a whole sequence, its end included, as Time-MoE's `TimeMoEDataset` does: "zero" brings it to
    mean 0 and deviation 1 (ddof 0), "max" divides it by its largest magnitude. Unlike there, integers are not
    truncated, missing values do not count, and float16 is computed in float64.
    """

    def __init__(self, path: str | Path, normalization: Normalization = "none"):
        self._source = open_source(path)
        self._normalization: Normalization = normalization
        self._sequences_up_to = np.cumsum(self._source.num_targets, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._sequences_up_to[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        """float32 or float64 (T,), NaN where missing. Raises IndexError outside of the data set."""
        item, variate = self._find(index)
        values_T = self._source.read(item).target_VT[variate]
        center, scale = center_and_scale(values_T[None], self._normalization)
        return ((values_T - center) / scale).astype(values_T.dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    @property
    def num_tokens(self) -> int:
        """Steps of all sequences together."""
        return int(self._source.lengths @ self._source.num_targets.astype(np.int64))

    def get_sequence_length_by_idx(self, index: int) -> int:
        """Steps of one sequence; its values are not read."""
        return int(self._source.lengths[self._find(index)[0]])

    def _find(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no sequence {index}: the data set has {len(self)}")
        index %= len(self)
        item = int(np.searchsorted(self._sequences_up_to, index, side="right"))
        first = int(self._sequences_up_to[item] - self._source.num_targets[item])
        return item, index - first
