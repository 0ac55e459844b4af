"""Time-300B folders: raw arrays of numbers in shards, and a meta.json that says where in them each sequence lies.

The format of Time-MoE's pre-training data (https://huggingface.co/datasets/Maple728/Time-300B). All shards together,
in the order of their numbers, are one flat array; a sequence may begin in one shard and end in another.

Axes: N sequences, T steps, R rows of a window (always one), C context, H horizon.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import numpy as np

from foreloom.data.binary_index import read_index
from foreloom.data.series import RowCounts, Series

META = "meta.json"


class BinarySource:
    """`Source` over a folder of meta.json and shards, mapped where they lie.

    A sequence whose scale has both a mean and a std is stored normalised and comes out as `raw * std + mean`. Raises
    ValueError where the description is damaged or does not fit the shards.
    """

    def __init__(self, folder: Path, *, name: str, fingerprint: str):
        self.name = name
        self.fingerprint = fingerprint
        self._index = index = read_index(folder / META)
        self._shards = [_map(folder / shard, index.dtype, count) for shard, count in index.shards.items()]
        self._ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64).tolist()
        self.num_bytes = sum(shard.nbytes for shard in self._shards)
        self.lengths = index.length_N
        self.num_rows = self.num_targets = np.ones(len(self.lengths), dtype=np.int32)
        self._check_extents(folder)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, item: int) -> Series:
        """Sequence `item`: float32 where the shards hold float16 or float32, else float64."""
        dtype = self._index.dtype
        is_short = dtype.kind == "f" and dtype.itemsize <= 4
        values_T = self._cut(item, 0, int(self.lengths[item]))
        return Series(str(item), values_T[None].astype(np.float32 if is_short else np.float64))

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        num_steps = min(cut, context_RC.shape[1])
        num_ahead = min(int(self.lengths[item]) - cut, future_RH.shape[1])
        values_T = self._cut(item, cut - num_steps, cut + num_ahead)
        context_RC[0, context_RC.shape[1] - num_steps :] = values_T[:num_steps]
        future_RH[0, :num_ahead] = values_T[num_steps:]
        return RowCounts(1, 0, 0)

    def _cut(self, item: int, begin: int, end: int) -> np.ndarray:
        """float64 (end - begin,): steps of a sequence in its own units."""
        position = int(self._index.offset_N[item]) + begin
        values_T = np.empty(end - begin)
        filled = 0
        while filled < len(values_T):
            number = bisect_right(self._ends, position)
            shard = self._shards[number]
            first = position - (self._ends[number] - len(shard))
            part = shard[first : first + len(values_T) - filled]
            values_T[filled : filled + len(part)] = part
            filled += len(part)
            position += len(part)
        values_T *= self._index.std_N[item]
        values_T += self._index.mean_N[item]
        return values_T

    def _check_extents(self, folder: Path) -> None:
        total = sum(len(shard) for shard in self._shards)
        offset_N, end_N = self._index.offset_N, self._index.offset_N + self.lengths
        wrong = np.flatnonzero((offset_N < 0) | (self.lengths < 0) | (end_N > total))
        if len(wrong):
            item = int(wrong[0])
            raise ValueError(
                f"{folder / META}: sequence {item} reaches from element {offset_N[item]} to {end_N[item]}, but the "
                f"shards hold {total} elements together. A shard is missing or the description is of other data; copy "
                "the folder again."
            )


def _map(path: Path, dtype: np.dtype, num_elements: int) -> np.ndarray:
    if not path.exists():
        raise ValueError(f"{path}: the shard is missing, but {META} lists it. Copy the folder again.")
    num_bytes = path.stat().st_size
    if num_bytes != num_elements * dtype.itemsize:
        raise ValueError(
            f"{path}: the shard has {num_bytes} bytes, but {META} gives it {num_elements} elements of {dtype}, that is "
            f"{num_elements * dtype.itemsize} bytes. It may be cut short: copy it again."
        )
    # A memmap is an ndarray that costs several times as much to slice.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r")) if num_elements else np.empty(0, dtype)
