"""Opens a data set as a `Source`: which layout a path has is told by names alone, a folder of data sets is one.

Axes: R rows, C context, H horizon.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from foreloom.data.formats.arrow import ArrowSource
from foreloom.data.formats.arrow_columns import NotMappable
from foreloom.data.formats.cache import cached
from foreloom.data.formats.columnar import arrow_to_plain, parquet_to_arrow
from foreloom.data.formats.records import json_to_arrow, jsonl_to_arrow, npy_to_arrow, pickle_to_arrow
from foreloom.data.formats.time300b import META, BinarySource
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
_SAMPLE_BYTES = 4096
ACCEPTED = (
    "a save_to_disk folder (state.json, or dataset_dict.json with a split 'train'), a Time-300B folder (meta.json and "
    ".bin shards), files .arrow, .parquet, .jsonl, .json, .csv, .tsv, .csv.gz, .npy, .pkl or .pickle, or a "
    "folder of these"
)
_ENDINGS = {
    ".arrow": "arrow",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".npy": "npy",
    ".pkl": "pickle",
    ".pickle": "pickle",
}
_DESCRIPTIONS = ("state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", META)


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
    fingerprint = _fingerprint(part.layout, part.files)
    if part.layout == "binary":
        return BinarySource(part.path, name=name, fingerprint=fingerprint)
    if part.layout == "arrow":
        try:
            return ArrowSource(part.files, name=name, fingerprint=fingerprint, origin=origin)
        except NotMappable:
            plain = cached(part.files, lambda out: arrow_to_plain(part.files, out))
    elif part.layout in _TABLES:
        variant = "" if table == TableOptions() else repr(table)
        fingerprint += variant
        plain = cached(part.files, lambda out: _TABLES[part.layout](part.files, out, table), variant)
    else:
        plain = cached(part.files, lambda out: _CONVERTERS[part.layout](part.files, out))
    try:
        source = ArrowSource([plain], name=name, fingerprint=fingerprint, origin=origin)
        say_notes(source.schema)
        return source
    except NotMappable as reason:
        raise ValueError(f"{origin}: {reason}; numbers are wanted. Convert or drop the column.") from None


def _label(part: Part, root: Path) -> str:
    """Where below the root a part lies; of several files, their common pattern."""
    path = part.path if len(part.files) == 1 or part.layout == "binary" else part.path / f"*{part.files[0].suffix}"
    return path.relative_to(root).as_posix()


def _fingerprint(layout: str, files: Sequence[Path]) -> str:
    """Names, sizes, first and last bytes of the files: the same for a copy elsewhere."""
    digest = blake2b(layout.encode(), digest_size=16)
    for path in files:
        num_bytes = path.stat().st_size
        digest.update(f"{path.name}|{num_bytes}|".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, num_bytes - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


@dataclass(frozen=True)
class Part:
    """Files of one layout that are one source."""

    layout: str
    """"arrow", "parquet", "jsonl", "json", "csv", "npy", "pickle" or "binary"."""
    path: Path
    """The one file, or the folder."""
    files: Sequence[Path]


def find_parts(path: Path) -> list[Part]:
    """The parts of a data set: one of a file or of a folder with a layout of its own, else all found by walking it.

    Names are taken in order, what begins with a dot is passed over. Raises ValueError, with what there is, where
    nothing is found.
    """
    if path.is_file():
        if _ending(path) not in _ENDINGS:
            raise ValueError(f"{path}: not a data set. Accepted: {ACCEPTED}.")
        return [Part(_ENDINGS[_ending(path)], path, [path])]
    parts = _walk(path)
    if not parts:
        holds = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise ValueError(f"{path}: not a data set, it holds {holds}. Accepted: {ACCEPTED}.")
    return parts


def _walk(folder: Path) -> list[Part]:
    if (folder / "dataset_dict.json").exists():
        return _walk(_train_split(folder))
    if (folder / "state.json").exists():
        return [Part("arrow", folder, _files_of_state(folder))]
    if (folder / META).exists() and (shards := sorted(folder.glob("*.bin"))):
        return [Part("binary", folder, [folder / META, *shards])]
    files: dict[str, list[Path]] = {}
    inner: list[Part] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            inner += _walk(entry)
        elif _ending(entry) in _ENDINGS and entry.name not in _DESCRIPTIONS:
            files.setdefault(_ENDINGS[_ending(entry)], []).append(entry)
    return [Part(layout, its[0] if len(its) == 1 else folder, its) for layout, its in files.items()] + inner


def _ending(path: Path) -> str:
    """.csv of sales.csv.gz; only text tables are read compressed."""
    is_compressed = path.suffix == ".gz" and Path(path.stem).suffix in (".csv", ".tsv")
    return Path(path.stem).suffix if is_compressed else path.suffix


def _train_split(path: Path) -> Path:
    splits = _described(path / "dataset_dict.json", "splits")
    if "train" not in splits:
        raise ValueError(
            f"{path}: there is no split 'train'; the splits are {', '.join(splits)}. Name the folder of one of them, "
            f"for example {path / splits[0]}."
        )
    return path / "train"


def _files_of_state(path: Path) -> list[Path]:
    files = [path / entry["filename"] for entry in _described(path / "state.json", "_data_files")]
    for file in files:
        if not file.exists():
            raise ValueError(f"{file}: the file is missing, but state.json lists it. Copy the folder again.")
    if not files:
        raise ValueError(f"{path}: the data set is empty, state.json lists no files. Check how it was written.")
    return files


def _described(file: Path, key: str) -> list:
    """The list that a description of `save_to_disk` holds under `key`."""
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON ({error.msg}). Copy the folder again.") from None
    if key not in description:
        raise ValueError(f"{file}: there is no {key!r}, so save_to_disk did not write it. Name the data files instead.")
    return description[key]


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
