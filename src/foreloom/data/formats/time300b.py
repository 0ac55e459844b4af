"""Time-300B folders: raw arrays of numbers in shards, and a meta.json that says where in them each sequence lies.

The format of Time-MoE's pre-training data (https://huggingface.co/datasets/Maple728/Time-300B). All shards together,
in the order of their numbers, are one flat array; a sequence may begin in one shard and end in another. Real ones
describe millions of sequences, and every rank opens them: meta.json is checked and parsed once, then kept as Arrow.

Axes: N sequences, T steps, R rows of a window (always one), C context, H horizon.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foreloom.data.formats.cache import cached
from foreloom.data.formats.open_files import leave_room
from foreloom.data.source import RowCounts, Series
from foreloom.files import read_json

META = "meta.json"
_SHARD_NUMBER = re.compile(r"[^-]*-(\d+)-")


class BinarySource:
    """`Source` over a folder of meta.json and shards, mapped where they lie.

    A sequence whose scale has both a mean and a std is stored normalised and comes out as `raw * std + mean`. Raises
    ValueError where the description is damaged or does not fit the shards.
    """

    def __init__(self, folder: Path, *, name: str, fingerprint: str, files: Mapping[str, str]):
        self.name = name
        self.fingerprint = fingerprint
        self.files = files
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
    with path.open("rb") as file:
        leave_room(path, file.fileno())
    # A memmap is an ndarray that costs several times as much to slice.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r")) if num_elements else np.empty(0, dtype)


@dataclass(frozen=True)
class BinaryIndex:
    """What meta.json says."""

    dtype: np.dtype
    shards: Mapping[str, int]
    """Number of elements of each file, in the order of the number between the first two dashes of their names."""
    offset_N: np.ndarray
    """int64, first element of each sequence in all shards together."""
    length_N: np.ndarray
    """int64."""
    mean_N: np.ndarray
    """float64; 0 with a std of 1 where the scale does not give both."""
    std_N: np.ndarray


def read_index(meta: Path) -> BinaryIndex:
    """Parse a meta.json, or map what an earlier call made of it. Raises ValueError where it is damaged."""
    with pa.memory_map(str(cached([meta], lambda out: _write(meta, out)))) as file:
        table = pa.ipc.open_file(file).read_all()
    shards = json.loads(table.schema.metadata[b"shards"])
    columns = (table.column(name).chunk(0).to_numpy() for name in ("offset", "length", "mean", "std"))
    return BinaryIndex(np.dtype(table.schema.metadata[b"dtype"].decode()), shards, *columns)


def _write(meta: Path, out: Path) -> None:
    described = _described(meta)
    scales = described["scales"]
    mean_N, std_N = _column(scales, "mean", np.float64, meta), _column(scales, "std", np.float64, meta)
    is_raw_N = np.array([scale.get("mean") is None or scale.get("std") is None for scale in scales], dtype=bool)
    mean_N[is_raw_N], std_N[is_raw_N] = 0, 1
    columns = {
        "offset": _column(scales, "offset", np.int64, meta),
        "length": _column(scales, "length", np.int64, meta),
        "mean": mean_N,
        "std": std_N,
    }
    facts = {"dtype": _dtype(described["dtype"], meta).str, "shards": json.dumps(_ordered(described["files"], meta))}
    batch = pa.record_batch(columns).replace_schema_metadata(facts)
    with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _described(meta: Path) -> dict[str, Any]:
    described = read_json(meta, "Copy the folder again.")
    kinds = {"num_sequences": int, "dtype": str, "files": dict, "scales": list}
    for key, kind in kinds.items():
        if not isinstance(described, dict) or not isinstance(described.get(key), kind):
            raise ValueError(
                f"{meta}: there is no proper {key!r}; a Time-300B folder is described by num_sequences, dtype, files "
                "(name and number of elements of each shard) and scales. Copy the folder again."
            )
    if len(described["scales"]) != described["num_sequences"]:
        raise ValueError(
            f"{meta}: num_sequences is {described['num_sequences']}, but there are {len(described['scales'])} scales. "
            "Copy the folder again."
        )
    if not described["scales"]:
        raise ValueError(f"{meta}: the data set is empty, it has no sequences. Check how it was written.")
    return described


def _ordered(files: Mapping[str, Any], meta: Path) -> dict[str, int]:
    places: dict[str, int] = {}
    for name, num_elements in files.items():
        number = _SHARD_NUMBER.match(name)
        if number is None:
            raise ValueError(
                f"{meta}: the shard {name!r} has no number; names look like data-3-of-12.bin, and the number between "
                "the first two dashes is its place."
            )
        if not isinstance(num_elements, int):
            raise ValueError(f"{meta}: the shard {name!r} has {num_elements!r} for its number of elements.")
        places[name] = int(number[1])
    return {name: files[name] for name in sorted(places, key=places.__getitem__)}


def _dtype(name: str, meta: Path) -> np.dtype:
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in "fiu":
        raise ValueError(f"{meta}: dtype {name!r} is not a type of numbers; float32, float16 and int64 are examples.")
    return dtype


def _column(scales: Sequence[Any], key: str, dtype: type, meta: Path) -> np.ndarray:
    """One number of every scale; a mean or std that is absent is NaN."""
    is_optional = dtype is np.float64
    for number, scale in enumerate(scales):
        value = scale.get(key) if isinstance(scale, dict) else None
        if not isinstance(value, int | float if is_optional else int) and not (is_optional and value is None):
            raise ValueError(
                f"{meta}: the scale of sequence {number} has no proper {key!r}: {scale!r}. Copy the folder again."
            )
    return np.array([scale.get(key) for scale in scales], dtype=dtype)
