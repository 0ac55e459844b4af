"""Opens a data set, whatever its layout, as a `Source`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

from foreloom.data.arrow import ArrowSource
from foreloom.data.cache import cached
from foreloom.data.convert_columnar import arrow_to_plain, parquet_to_arrow
from foreloom.data.convert_text import csv_to_arrow, jsonl_to_arrow
from foreloom.data.mapped_file import NotMappable
from foreloom.data.series import Source

LAYOUTS = (
    "a save_to_disk folder (state.json, or dataset_dict.json with a split 'train'), or one or more files .arrow, "
    ".parquet, .jsonl or .csv"
)
_ENDINGS = {
    ".arrow": "arrow",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
}
_CONVERTERS: dict[str, Callable[[Sequence[Path], Path], None]] = {
    "parquet": parquet_to_arrow,
    "jsonl": jsonl_to_arrow,
    "csv": csv_to_arrow,
}
_SAMPLE_BYTES = 4096
_DESCRIPTIONS = ("state.json", "dataset_info.json", "dataset_dict.json")


def open_source(path: str | Path, name: str | None = None) -> Source:
    """Open the data set at `path`, a file or a folder.

    Layouts: Hugging Face `save_to_disk` folders (a DatasetDict gives its split "train"); Arrow files, stream or file
    format, one or a folder of them; Parquet, one series a row or long; JSONL; CSV, long or wide. Plain Arrow files are
    mapped where they lie; all others are converted once into a cached Arrow file (see `data/cache.py`) and mapped.
    Raises ValueError for a path that is missing, empty, or none of these.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder. Relative paths start at {Path.cwd()}.")
    layout, files = find_files(path)
    name = name or str(path)
    fingerprint = _fingerprint(layout, files)
    if layout == "arrow":
        try:
            return ArrowSource(files, name=name, fingerprint=fingerprint, origin=path)
        except NotMappable:
            plain = cached(files, lambda out: arrow_to_plain(files, out))
    else:
        plain = cached(files, lambda out: _CONVERTERS[layout](files, out))
    try:
        return ArrowSource([plain], name=name, fingerprint=fingerprint, origin=path)
    except NotMappable as reason:
        raise ValueError(f"{path}: {reason}; numbers are wanted. Convert or drop the column.") from None


def find_files(path: Path) -> tuple[str, list[Path]]:
    """Layout ("arrow", "parquet", "jsonl" or "csv") and data files of a data set."""
    if path.is_file():
        if path.suffix not in _ENDINGS:
            raise ValueError(f"{path}: not a data set. Accepted: {LAYOUTS}.")
        return _ENDINGS[path.suffix], [path]
    if (path / "dataset_dict.json").exists():
        return find_files(_train_split(path))
    if (path / "state.json").exists():
        return "arrow", _files_of_state(path)
    found = {}
    for file in sorted(path.iterdir()):
        if file.suffix in _ENDINGS and file.name not in _DESCRIPTIONS and not file.name.startswith("."):
            found.setdefault(_ENDINGS[file.suffix], []).append(file)
    if len(found) > 1:
        raise ValueError(f"{path}: the folder mixes {' and '.join(sorted(found))} files. Name the file to read.")
    for layout, files in found.items():
        return layout, files
    holds = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise ValueError(f"{path}: not a data set, it holds {holds}. Accepted: {LAYOUTS}.")


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
