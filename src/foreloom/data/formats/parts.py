"""Which files a path stands for: told by names alone, a folder of data sets is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom.data.formats.time300b import META
from foreloom.files import read_json

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


@dataclass(frozen=True)
class Part:
    """Files of one layout that are one source."""

    layout: str
    """"arrow", "parquet", "jsonl", "json", "csv", "npy", "pickle" or "binary"."""
    path: Path
    """The one file, or the folder."""
    files: Sequence[Path]
    indices: Sequence[Path] = ()
    """Arrow files that choose rows of `files` and say their order."""


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
        data_files = _files_of_state(folder, "_data_files")
        if not data_files:
            raise ValueError(f"{folder}: the data set is empty, state.json lists no files. Check how it was written.")
        return [Part("arrow", folder, data_files, _files_of_state(folder, "_indices_data_files"))]
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
    splits = [str(split) for split in _described(path / "dataset_dict.json", "splits")]
    if "train" not in splits:
        raise ValueError(
            f"{path}: there is no split 'train'; the splits are {', '.join(splits)}. Name the folder of one of them, "
            f"for example {path / splits[0]}."
        )
    return path / "train"


def _files_of_state(path: Path, key: str) -> list[Path]:
    """Those that state.json lists under `_data_files`, or under `_indices_data_files`: old versions of `datasets` wrote
    which rows are left after select, filter or shuffle."""
    entries = _described(path / "state.json", key)
    if not all(isinstance(entry, dict) and isinstance(entry.get("filename"), str) for entry in entries):
        raise ValueError(f"{path / 'state.json'}: {key!r} does not list files. Copy the folder again.")
    files = [path / entry["filename"] for entry in entries]
    for file in files:
        if not file.exists():
            raise ValueError(f"{file}: the file is missing, but state.json lists it. Copy the folder again.")
    return files


def _described(file: Path, key: str) -> list:
    """The list that a description of `save_to_disk` holds under `key`."""
    description = read_json(file, "Copy the folder again.")
    found = description.get(key) if isinstance(description, dict) else None
    if found is None and key == "_indices_data_files":
        return []
    if not isinstance(found, list):
        raise ValueError(f"{file}: there is no {key!r}, so save_to_disk did not write it. Name the data files instead.")
    return found
