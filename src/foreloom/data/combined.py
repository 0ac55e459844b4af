"""Several sources as one: the data sets of a folder tree, in their order.

Axes: R rows, C context, H horizon.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from foreloom.data.series import RowCounts, Series, Source


class CombinedSource:
    """`Source` over sources one after the other. `labels` tell them apart: an item's id is its label and its own id."""

    def __init__(self, sources: Sequence[Source], labels: Sequence[str], *, name: str):
        self.name = name
        self._sources = sources
        self._labels = labels
        self._first_items = [0, *np.cumsum([len(source) for source in sources]).tolist()[:-1]]
        self.lengths = np.concatenate([source.lengths for source in sources])
        self.num_rows = np.concatenate([source.num_rows for source in sources])
        self.num_targets = np.concatenate([source.num_targets for source in sources])
        self.num_bytes = sum(source.num_bytes for source in sources)
        digest = blake2b(digest_size=16)
        for source in sources:
            digest.update(source.fingerprint.encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, item: int) -> Series:
        number, place = self._find(item)
        series = self._sources[number].read(place)
        return replace(series, item_id=f"{self._labels[number]}/{series.item_id}")

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        number, place = self._find(item)
        return self._sources[number].fill_window(place, cut, context_RC, future_RH)

    def _find(self, item: int) -> tuple[int, int]:
        number = bisect_right(self._first_items, item) - 1
        return number, item - self._first_items[number]
