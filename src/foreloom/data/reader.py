"""Opens a data set, whatever its layout, as a `Source`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

from foreloom.data.arrow import ArrowSource
from foreloom.data.binary import BinarySource
from foreloom.data.cache import cached
from foreloom.data.combined import CombinedSource
from foreloom.data.convert_arrays import npy_to_arrow, pickle_to_arrow
from foreloom.data.convert_columnar import arrow_to_plain, parquet_to_arrow
from foreloom.data.convert_text import json_to_arrow, jsonl_to_arrow
from foreloom.data.layouts import Part, find_parts
from foreloom.data.mapped_file import NotMappable
from foreloom.data.series import Source
from foreloom.data.synthetic.address import is_synthetic
from foreloom.data.synthetic.source import SyntheticSource
from foreloom.data.tables.as_series import say_notes, write_series_of
from foreloom.data.tables.read import TableOptions

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


def open_source(path: str | Path, name: str | None = None, table: TableOptions = TableOptions()) -> Source:
    """Open the data set at `path`, a file or a folder, or the address of a synthetic one (`synth://kernel`).

    Layouts: Hugging Face `save_to_disk` folders (a DatasetDict gives its split "train"); Time-300B folders; Arrow
    files, stream or file format, one or a folder of them; Parquet, one series a row or long; JSONL and JSON; CSV, long
    or wide; .npy; pickles of plain values and arrays; folders of all these, walked to their leaves. Plain Arrow and
    Time-300B are mapped where they lie; all others are converted once into a cached Arrow file (see `data/cache.py`)
    and mapped. `table` says of tables what they do not say themselves. Raises ValueError for a path that is missing,
    empty, or none of these.
    """
    if is_synthetic(path):
        return SyntheticSource(path, name)
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder. Relative paths start at {Path.cwd()}.")
    name = name or str(path)
    parts = find_parts(path)
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
