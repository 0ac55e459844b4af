"""The record of a fetched data set: its files, sizes and checksums, kept in the data root so that no network is needed
to know that it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from foreloom.data.fetch.checksum import Checksum
from foreloom.data.fetch.entry import FetchEntry
from foreloom.data.fetch.listing import HubFile
from foreloom.files import write_text

RECORDS = ".fetched"
"""Folder of the records below the data root. Readers pass over names that begin with a dot."""
UNFINISHED = ".unfinished"
"""How the name of a mark ends."""


@dataclass(frozen=True)
class Record:
    """What was fetched for an entry. Written when the data set is whole."""

    repo: str
    config: str
    revision: str
    files: Mapping[str, HubFile]
    """Path below the data root → the file of the hub."""

    def has_all_files(self, out: Path) -> bool:
        """Whether every file is there and as long as it should be."""
        return all(_num_bytes(out / local) == file.num_bytes for local, file in self.files.items())

    def write(self, entry: FetchEntry, out: Path) -> None:
        files = {
            local: {"path": file.path, "num_bytes": file.num_bytes, file.checksum.kind: file.checksum.digest}
            for local, file in self.files.items()
        }
        content = {"repo": self.repo, "config": self.config, "revision": self.revision, "files": files}
        write_text(record_file(entry, out), json.dumps(content, indent=2) + "\n")


def unfinished_mark(entry: FetchEntry, out: Path) -> Path:
    """A file that lies beside a data set's own while they are fetched, so that a part is not taken for the whole."""
    return out / entry.folder / f".{PurePosixPath(entry.config).name}{UNFINISHED}"


def is_unfinished(folder: Path) -> bool:
    """Was a fetch into this folder cut off, so that files of it may be missing or of an older version?"""
    return any(folder.glob(f".*{UNFINISHED}"))


def record_file(entry: FetchEntry, out: Path) -> Path:
    """Where the record of an entry lies."""
    return out / RECORDS / entry.folder / f"{PurePosixPath(entry.config).name}.json"


def read_record(entry: FetchEntry, out: Path) -> Record | None:
    """The record of an entry; None where there is none.

    Raises ValueError for a record that cannot be read, and for a folder that holds another data set: two in one folder
    could not be told apart by a reader.
    """
    path = record_file(entry, out)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {
            local: HubFile(
                file["path"],
                file["num_bytes"],
                Checksum("sha256", file["sha256"]) if "sha256" in file else Checksum("git", file["git"]),
            )
            for local, file in content["files"].items()
        }
        record = Record(content["repo"], content["config"], content["revision"], files)
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({error!r}). Delete this file and fetch again.") from None
    if (record.repo, record.config) != (entry.repo, entry.config):
        raise ValueError(
            f"{out / entry.folder} holds {record.config} of {record.repo}, not {entry.config} of {entry.repo}. Fetch "
            "into another folder."
        )
    return record


def _num_bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
