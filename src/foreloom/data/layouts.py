"""Which layout a path has, and which files belong to it: told by names alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom.data.binary import META

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
