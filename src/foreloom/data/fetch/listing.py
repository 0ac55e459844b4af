"""What a data set repository holds at one commit, and which of its files make one data set."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from foreloom.data.fetch.checksum import Checksum
from foreloom.data.fetch.entry import FetchEntry, is_below


@dataclass(frozen=True)
class HubFile:
    """A file of a repository."""

    path: str
    num_bytes: int
    checksum: Checksum


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repo: str
    revision: str
    """Commit, 40 hexadecimal digits."""
    files: tuple[HubFile, ...]
    patterns: Mapping[str, tuple[str, ...]]
    """Configuration → patterns of its files, from the repository's card."""

    def select(self, entry: FetchEntry) -> dict[str, HubFile]:
        """The files of a data set by their path below the data root.

        `entry.config` is looked up among the configurations of the card (their split `train`, as `datasets` takes it),
        then among folders, then among files. A part of the path that all files share is left out: the files of
        `ETT/15T/train-*` lie in `entry.folder` itself. Raises ValueError when nothing is found, with near
        names, and for a file that leads out of the data root.
        """
        if entry.config in self.patterns:
            wanted = self.patterns[entry.config]
            found = [file for file in self.files if any(fnmatchcase(file.path, pattern) for pattern in wanted)]
        else:
            found = [file for file in self.files if file.path.startswith(f"{entry.config}/")]
            found = found or [file for file in self.files if file.path == entry.config]
        if not found:
            raise ValueError(self._absent(entry))
        above = _common_folder([PurePosixPath(file.path) for file in found])
        selected = {}
        for file in found:
            local = PurePosixPath(entry.folder) / PurePosixPath(file.path).relative_to(above)
            if not is_below(str(local)):
                raise ValueError(
                    f"the hub's data set {self.repo} lists {file.path!r}, which leads out of the data root."
                )
            selected[str(local)] = file
        return selected

    def _absent(self, entry: FetchEntry) -> str:
        folders = {str(PurePosixPath(file.path).parent) for file in self.files} - {"."}
        known = sorted({*self.patterns, *folders}) or sorted(file.path for file in self.files)
        near = difflib.get_close_matches(entry.config, known, n=3) or known[:3]
        return (
            f"the hub's {self.repo} has no configuration, folder or file {entry.config!r}; it has "
            f"{', '.join(near)}{' ...' if len(known) > len(near) else ''}."
        )


def card_patterns(configs: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The `configs` of a data set card, as configuration → patterns of the files of split `train`.

    `data_files` is a pattern, a list of patterns, or a list of {split, path}. A configuration without a split `train`
    gives all its splits. Source: the hub's documentation, "Manual Configuration" of data sets.
    """
    patterns = {}
    for config in configs:
        stated = config.get("data_files", [])
        parts = [{"split": "train", "path": stated}] if isinstance(stated, str) else stated
        parts = [{"split": "train", "path": part} if isinstance(part, str) else part for part in parts]
        train = [part for part in parts if part["split"] == "train"] or parts
        paths = [[part["path"]] if isinstance(part["path"], str) else part["path"] for part in train]
        if paths:
            patterns[config["config_name"]] = tuple(path for group in paths for path in group)
    return patterns


def _common_folder(paths: list[PurePosixPath]) -> PurePosixPath:
    above = paths[0].parent
    while not all(path.is_relative_to(above) for path in paths):
        above = above.parent
    return above
