"""A source of series already in memory: from a table, a test or a generator."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from foreloom.data.series import RowCounts, Series
from foreloom.data.windows import fill_from_series


class MemorySource:
    """`Source` over a sequence of `Series`."""

    def __init__(self, series: Sequence[Series], name: str = "memory"):
        self.name = name
        self.num_bytes = 0
        self.lengths = np.array([one.length for one in series], dtype=np.int64)
        self.num_rows = np.array([sum(one.counts) for one in series], dtype=np.int32)
        self.num_targets = np.array([one.counts.num_targets for one in series], dtype=np.int32)
        digest = blake2b(digest_size=16)
        for one in series:
            digest.update(one.target_VT.tobytes())
        self.fingerprint = digest.hexdigest()
        self._series = series

    def __len__(self) -> int:
        return len(self._series)

    def read(self, item: int) -> Series:
        return self._series[item]

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        return fill_from_series(self._series[item], cut, context_RC, future_RH)
