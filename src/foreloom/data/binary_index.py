"""The meta.json of a Time-300B folder: checked and parsed once, then kept as an Arrow file that is mapped.

Real ones describe millions of sequences, and every rank opens them. Axes: N sequences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foreloom.data.cache import cached

_SHARD_NUMBER = re.compile(r"[^-]*-(\d+)-")


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
    try:
        described = json.loads(meta.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{meta}: not JSON ({error}). Copy the folder again.") from None
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
