"""A synthetic process as a data set: its series are made when they are read, and the same ones every time.

Axes: B series, T time, R rows (always one), C context, H horizon.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

from foreloom.data.source import RowCounts, Series, fill_from_series
from foreloom.data.synthetic.address import read_address
from foreloom.data.synthetic.process import OpenSource

_VERSION = 1
"""Of what the processes make: counted up when a series of a seed becomes another one."""
_VALUES_AT_ONCE = 2**20


class SyntheticSource:
    """`Source` over the series of a process, univariate, float32, without times.

    `prepare` makes many series at once, which is faster than one by one, and keeps them until it is asked for others.
    Each thread has its own, so that one may read ahead while another validates.
    """

    def __init__(self, path: str | Path, open_source: OpenSource, name: str | None = None):
        """`open_source` opens what series are made of, where they are made of others.

        Raises ValueError for an address that is wrong, see `read_address`.
        """
        address = read_address(path)
        collection = address.collection
        shortest, longest = collection.length_range
        self.name = name or address.text
        self.num_bytes = 0
        self._process_name = address.process.name
        try:
            self._maker = address.process.open(address.settings, collection.seed, shortest, longest, open_source)
        except ValueError as error:
            raise ValueError(f"{address.text}: {error}") from error
        self._num_at_once = max(_VALUES_AT_ONCE // longest, 1)
        self.lengths = self._maker.lengths(collection.num_series)
        self.num_rows = np.broadcast_to(np.int32(1), collection.num_series)
        self.num_targets = self.num_rows
        described = f"{_VERSION}|{self._process_name}|{collection}|{self._maker.fingerprint()}"
        self.files: Mapping[str, str] = {}
        self.fingerprint = blake2b(described.encode(), digest_size=16).hexdigest()
        self._of_thread = threading.local()

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, item: int) -> Series:
        return Series(
            item_id=f"{self._process_name}-{item:07d}",
            target_VT=self._values(item)[None],
            static={"kind": self.kinds(np.array([item]))[0]},
        )

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        return fill_from_series(Series("", self._values(item)[None]), cut, context_RC, future_RH)

    def prepare(self, items: np.ndarray) -> None:
        before = self._prepared()
        wanted = np.unique(items).tolist()
        if before.keys() >= set(wanted):
            return
        prepared = {item: before[item] for item in wanted if item in before}
        new = np.array([item for item in wanted if item not in before], dtype=np.int64)
        for first in range(0, len(new), self._num_at_once):
            item_B = new[first : first + self._num_at_once]
            made = self._maker.make(item_B, self.lengths[item_B])
            prepared |= {item: values.astype(np.float32) for item, values in zip(item_B.tolist(), made, strict=True)}
        self._of_thread.prepared = prepared

    def kinds(self, item_B: np.ndarray) -> list[str]:
        """A word a series for what it is; nothing is made for it."""
        return list(self._maker.kinds(item_B))

    def _prepared(self) -> dict[int, np.ndarray]:
        return getattr(self._of_thread, "prepared", {})

    def _values(self, item: int) -> np.ndarray:
        """float32 (T,)."""
        if item not in self._prepared():
            self.prepare(np.array([item]))
        return self._prepared()[item]
