"""One data set to fetch: where it lies on the hub, and the folder it gets below the data root."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class FetchEntry:
    """One data set of a suite. Tasks that share a data set share an entry.

    Raises ValueError for a folder that is not below the data root.
    """

    name: str
    """What users call it: `--only NAME`."""
    repo: str
    """Data set repository on the hub, `owner/name`."""
    config: str
    """A configuration of the repository's card, or one of its folders or files."""
    folder: str
    """Folder below the data root that its files go into."""

    def __post_init__(self) -> None:
        if not is_below(self.folder):
            raise ValueError(f"{self.name}: folder {self.folder!r} is not below the data root. Name a relative folder.")


def is_below(path: str) -> bool:
    """Whether a relative path stays below the folder it starts at."""
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts


def choose(entries: Iterable[FetchEntry], names: Sequence[str]) -> list[FetchEntry]:
    """The entries of those names, all of them for no names.

    Raises ValueError that lists every name that is not known, with the nearest that is.
    """
    entries = list(entries)
    known = [entry.name for entry in entries]
    unknown = []
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            unknown.append(f"{name!r}" + (f" (did you mean {close[0]}?)" if close else ""))
    if unknown:
        raise ValueError(f"no such data set: {', '.join(unknown)}. The data sets are {', '.join(known)}.")
    return [entry for entry in entries if not names or entry.name in names]
