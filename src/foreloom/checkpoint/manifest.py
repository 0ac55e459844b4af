"""A checkpoint's manifest: what it holds, how good it was, and size and checksum of each file, so damage is seen."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

NAME = "manifest.json"
VALIDATION_LOSS = "validation_loss"
"""Name among the scores, beside the benchmark's metrics."""


class CheckpointError(ValueError):
    """A checkpoint that could not be written or read, in a sentence."""


class OtherVersionError(CheckpointError):
    """A checkpoint that is whole, but written by a foreloom that keeps other things in it."""

    def __init__(self, path: Path, what: str, written_by: str) -> None:
        super().__init__(path, what, written_by)

    def __str__(self) -> str:
        path, what, written_by = self.args
        return (
            f"{path} {what}: it was written by foreloom {written_by}, and this is {installed_versions()['foreloom']}. "
            "Use the version it was written with, or a later one; nothing was changed"
        )


@dataclass(frozen=True)
class FileRecord:
    size_bytes: int
    sha256: str


_OF_FILES = {one.name for one in dataclasses.fields(FileRecord)}


@dataclass(frozen=True)
class Manifest:
    """Written last into a checkpoint folder. Counts are since the run began."""

    step: int
    num_rows: int
    """Seen."""
    flops: float
    final: bool
    """Saved at the run's last step; stays until a longer run has a later one."""
    scores: Mapping[str, float]
    """Of the weights after this step, by metric: the benchmark's and `validation_loss`; empty where neither was run."""
    fingerprint: str
    """Of the training data."""
    config_hash: str
    world_size: int
    versions: Mapping[str, str]
    export_step: int | None = None
    """The step whose weights hf/ holds: an earlier one where the run ends with its best; None without hf/."""
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    """Path inside the folder -> what it was when written."""

    def write(self, folder: Path) -> None:
        write_json(folder / NAME, dataclasses.asdict(self))

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Raises ValueError where the manifest is missing or not one, OtherVersionError where it says other things."""
        path = folder / NAME
        try:
            values = json.loads(path.read_text())
            written_by = values["versions"].get("foreloom", "of an unknown version")
            records = list(values["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no readable manifest ({error})") from error
        own = {one.name for one in dataclasses.fields(Manifest)}
        unknown = [
            *(values.keys() - own),
            *(f"{key} of {name}" for name, of in records for key in of.keys() - _OF_FILES),
        ]
        if unknown:
            raise OtherVersionError(path, f"has {unknown[0]!r}, which is not known here", written_by)
        try:
            values["files"] = {name: FileRecord(**record) for name, record in records}
            return Manifest(**values)
        except TypeError as error:
            raise OtherVersionError(path, f"lacks something ({error})", written_by) from error


@functools.cache
def installed_versions() -> dict[str, str]:
    """Of what decides the numbers: Python, torch, numpy, foreloom."""
    found = {"python": platform.python_version()}
    for package in ("foreloom", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def file_record(path: Path) -> FileRecord:
    """Size and checksum of a file, once the disk has all of it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return FileRecord(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def find_damage(folder: Path, files: Mapping[str, FileRecord], names: Iterable[str]) -> list[str]:
    """A sentence for each of `names` that is not what the manifest says."""
    damage = []
    for name in names:
        path, written = folder / name, files[name]
        if not path.is_file():
            damage.append(f"{name} is missing")
        elif path.stat().st_size != written.size_bytes:
            damage.append(f"{name} has {path.stat().st_size:,} bytes instead of {written.size_bytes:,}")
        elif file_record(path) != written:
            damage.append(f"{name} has another checksum than when it was written")
    return damage


def write_json(path: Path, values: Any) -> None:
    """Write and wait until the disk has it."""
    with path.open("w") as file:
        json.dump(values, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries (renames, new files)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
