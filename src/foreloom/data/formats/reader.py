"""Opens a data set as a `Source`, whatever its layout; several in one folder are one.

Axes: R rows, C context, H horizon.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foreloom.data.formats.arrow import ArrowSource
from foreloom.data.formats.arrow_columns import MappedFile, NotMappable
from foreloom.data.formats.cache import cached
from foreloom.data.formats.columnar import arrow_to_plain, parquet_to_arrow
from foreloom.data.formats.fingerprint import combine, digests
from foreloom.data.formats.parts import Part, find_parts
from foreloom.data.formats.records import json_to_arrow, jsonl_to_arrow, npy_to_arrow, pickle_to_arrow
from foreloom.data.formats.time300b import BinarySource
from foreloom.data.source import RowCounts, Series, Source
from foreloom.data.synthetic.address import is_synthetic
from foreloom.data.synthetic.source import SyntheticSource
from foreloom.data.tables.as_series import say_notes, write_series_of
from foreloom.data.tables.options import TableOptions, refuse_table_options

_CONVERTERS: dict[str, Callable[[Sequence[Path], Path], None]] = {
    "jsonl": jsonl_to_arrow,
    "json": json_to_arrow,
    "npy": npy_to_arrow,
    "pickle": pickle_to_arrow,
}
_TABLES: dict[str, Callable[[Sequence[Path], Path, TableOptions], None]] = {
    "parquet": parquet_to_arrow,
    "csv": write_series_of,
}


def open_source(path: str | Path, name: str | None = None, table: TableOptions = TableOptions()) -> Source:
    """Open the data set at `path`, a file or a folder, or the address of a synthetic one (`synth://kernel`).

    Layouts: Hugging Face `save_to_disk` folders (a DatasetDict gives its split "train"); Time-300B folders; Arrow
    files, stream or file format, one or a folder of them; Parquet, one series a row or long; JSONL and JSON; CSV, long
    or wide; .npy; pickles of plain values and arrays; folders of all these, walked to their leaves. Plain Arrow and
    Time-300B are mapped where they lie; all others are converted once into a cached Arrow file (see `cache.py`) and
    mapped. `table` says of tables what they do not say themselves. Raises ValueError for a path that is missing, empty,
    or none of these.
    """
    if is_synthetic(path):
        return SyntheticSource(path, open_source, name)
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder. Relative paths start at {Path.cwd()}.")
    name = name or str(path)
    parts = find_parts(path)
    if not any(part.layout in _TABLES for part in parts):
        refuse_table_options(path, table)
    if len(parts) == 1:
        return _open(parts[0], name, path, table)
    labels = [_label(part, path) for part in parts]
    return CombinedSource([_open(part, str(part.path), part.path, table) for part in parts], labels, name=name)


def _open(part: Part, name: str, origin: Path, table: TableOptions) -> Source:
    try:
        return _open_in_memory(part, name, origin, table)
    except MemoryError as error:
        raise ValueError(
            f"{origin}: there is not enough memory for what the file says it holds ({error}). If it is damaged, copy "
            "or write it again; else part it into several files."
        ) from error


def _open_in_memory(part: Part, name: str, origin: Path, table: TableOptions) -> Source:
    variant = repr(table) if part.layout in _TABLES and table != TableOptions() else ""
    files = digests([*part.files, *part.indices])
    identity = {"name": name, "files": files, "fingerprint": combine(part.layout + variant, files)}
    if part.layout == "binary":
        return BinarySource(part.path, **identity)
    if part.indices:
        whole = _open(replace(part, indices=()), name, origin, table)
        return ChosenRows(whole, _read_indices(part.indices), **identity)
    if part.layout == "arrow":
        try:
            return ArrowSource(part.files, **identity, origin=origin)
        except NotMappable:
            plain = cached(part.files, lambda out: arrow_to_plain(part.files, out))
    elif part.layout in _TABLES:
        plain = cached(part.files, lambda out: _TABLES[part.layout](part.files, out, table), variant)
    else:
        plain = cached(part.files, lambda out: _CONVERTERS[part.layout](part.files, out))
    try:
        source = ArrowSource([plain], **identity, origin=origin, row=functools.partial(_row_of, part, origin))
        say_notes(source.schema)
        return source
    except NotMappable as reason:
        raise ValueError(f"{origin}: {reason}; numbers are wanted. Convert or drop the column.") from None


def _row_of(part: Part, origin: Path, row: int) -> str:
    """A row of a converted data set, in its own file where files say how many rows they have."""
    if len(part.files) == 1:
        origin = part.files[0]
    elif part.layout == "parquet":
        for path in part.files:
            num_rows = pq.read_metadata(path).num_rows
            if row < num_rows:
                return f"{path}: row {row}"
            row -= num_rows
    return f"{origin}: row {row}"


def _read_indices(paths: Sequence[Path]) -> np.ndarray:
    """int64: the rows that a data set was reduced to, in the order it was given."""
    parts = [np.empty(0, np.int64)]
    for path in paths:
        file = MappedFile(path)
        if len(file.schema) != 1 or not pa.types.is_integer(file.schema.types[0]):
            raise ValueError(f"{path}: one column of row numbers is wanted, it holds {', '.join(file.schema.names)}.")
        parts += [batch.column(0).to_numpy(zero_copy_only=False).astype(np.int64) for batch in file.batches]
    return np.concatenate(parts)


def _label(part: Part, root: Path) -> str:
    """Where below the root a part lies; of several files, their common pattern."""
    path = part.path if len(part.files) == 1 or part.layout == "binary" else part.path / f"*{part.files[0].suffix}"
    return path.relative_to(root).as_posix()


class ChosenRows:
    """`Source` over some of the series of another, in the order of `rows`."""

    def __init__(self, source: Source, rows: np.ndarray, *, name: str, fingerprint: str, files: Mapping[str, str]):
        if not len(rows):
            raise ValueError(f"{name}: the data set is empty, its indices choose no row. Check how it was written.")
        if not 0 <= rows.min() <= rows.max() < len(source):
            raise ValueError(
                f"{name}: the indices name the rows {rows.min()} to {rows.max()}, but there are {len(source)}. Copy "
                "the folder again."
            )
        self.name, self.fingerprint, self.files = name, fingerprint, files
        self.num_bytes = source.num_bytes
        self.lengths, self.num_rows = source.lengths[rows], source.num_rows[rows]
        self.num_targets = source.num_targets[rows]
        self._source = source
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, item: int) -> Series:
        return self._source.read(int(self._rows[item]))

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        return self._source.fill_window(int(self._rows[item]), cut, context_RC, future_RH)


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
        named = list(zip(labels, sources, strict=True))
        files = {f"{label}: {file}": one for label, source in named for file, one in source.files.items()}
        self.files: Mapping[str, str] = files
        self.fingerprint = combine("combined", {label: source.fingerprint for label, source in named})

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
