"""Rows to compare: each target of each series of some sources, read a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreloom.data.source import Prepares, Source
from foreloom.data.synthetic.address import is_synthetic

_POINTS_AT_ONCE = 2**17
"""Fit into a core's cache with all that is made of them."""
_TOO_LARGE = 1e150
"""Squares of more overflow; what is so large stands for a missing value."""


@dataclass(frozen=True)
class Rows:
    """Axes: R rows, in the order of sources, series and targets."""

    sources: Sequence[Source]
    source_R: np.ndarray
    """int32."""
    item_R: np.ndarray
    """int64, series of the source."""
    target_R: np.ndarray
    """int32, of the series."""
    length_R: np.ndarray
    """int64, steps that count, from the first on."""

    @staticmethod
    def of(sources: Sequence[Source], items: Sequence[np.ndarray], lengths: Sequence[np.ndarray]) -> Rows:
        """All targets of `items` of each source; `lengths` are of all its series."""
        parts = []
        for number, (source, item_I, length_I) in enumerate(zip(sources, items, lengths, strict=True)):
            num_I = source.num_targets[item_I]
            item_R = np.repeat(item_I, num_I)
            target_R = np.arange(len(item_R)) - np.repeat(np.cumsum(num_I) - num_I, num_I)
            parts.append((np.full(len(item_R), number, np.int32), item_R, target_R.astype(np.int32), length_I[item_R]))
        if not parts:
            return Rows([], *(np.empty(0, np.int64) for _ in range(4)))
        return Rows(sources, *map(np.concatenate, zip(*parts, strict=True)))

    def __len__(self) -> int:
        return len(self.item_R)

    @property
    def num_points(self) -> int:
        return int(self.length_R.sum())

    @property
    def num_batches(self) -> int:
        """At most."""
        return -(-self.num_points // _POINTS_AT_ONCE)

    def batches(self) -> Iterator[list[np.ndarray]]:
        """All rows in their order, float64 (T,) each, some at a time; not finite or above 1e150 is missing."""
        changes = (np.diff(self.item_R) != 0) | (np.diff(self.source_R) != 0)
        begin_R = np.flatnonzero(np.concatenate([[True], changes])) if len(self) else np.empty(0, int)
        points_R = np.append(np.cumsum(self.length_R) - self.length_R, self.num_points)
        first = 0
        while first < len(begin_R):
            full = points_R[begin_R[first]] + _POINTS_AT_ONCE
            last = max(int(np.searchsorted(points_R[begin_R], full, side="right")), first + 1)
            some_R = begin_R[first:last]
            self._prepare(some_R)
            yield [row for r in some_R for row in self._targets(int(r))]
            first = last

    def read(self, row: int) -> np.ndarray:
        """float64 (T,)."""
        return self._targets(row)[self.target_R[row]]

    def series(self, row: int) -> str:
        """Id of the series."""
        return self.sources[self.source_R[row]].read(int(self.item_R[row])).item_id

    def _prepare(self, some_R: np.ndarray) -> None:
        for number in np.unique(self.source_R[some_R]):
            source = self.sources[number]
            if isinstance(source, Prepares):
                source.prepare(self.item_R[some_R[self.source_R[some_R] == number]])

    def _targets(self, row: int) -> list[np.ndarray]:
        source, item, length = self.sources[self.source_R[row]], int(self.item_R[row]), int(self.length_R[row])
        rows_RT = np.full((int(source.num_rows[item]), length), np.nan)
        source.fill_window(item, length, rows_RT, rows_RT[:, :0])
        targets_VT = rows_RT[: int(source.num_targets[item])]
        targets_VT[np.abs(targets_VT) > _TOO_LARGE] = np.nan
        return list(targets_VT)


def last_parts(name: str, names: Sequence[str]) -> str:
    """Of a data set among others: its folder and name, more where another ends alike."""
    parts = Path(name).parts
    tails = (parts[-num:] for num in range(2, len(parts)))
    others = [Path(one).parts for one in names if one != name]
    unique = next((tail for tail in tails if not any(one[-len(tail) :] == tail for one in others)), None)
    return name if is_synthetic(name) or unique is None else "/".join(unique)
