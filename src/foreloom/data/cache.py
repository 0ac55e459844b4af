"""The cache of converted data: a file that is not memory-mappable is rewritten once as Arrow, then mapped."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from foreloom.files import whole_or_absent

FORMAT_VERSION = 2
"""Part of every key: raise it when a converter writes something else for the same file."""


def cache_folder() -> Path:
    """`FORELOOM_CACHE`, or ~/.cache/foreloom."""
    return Path(os.environ.get("FORELOOM_CACHE") or Path.home() / ".cache" / "foreloom")


def cached(paths: Sequence[Path], write: Callable[[Path], None], variant: str = "") -> Path:
    """The Arrow file made of `paths`; `write(path)` makes it where it is missing.

    The key holds the paths, sizes and times of the sources, so a changed file is converted again, and `variant`, what
    `write` was told. The file is written under another name and renamed, so it is whole or absent; ranks of one
    machine wait for the one that writes.
    """
    digest = blake2b(f"{FORMAT_VERSION}{variant}".encode(), digest_size=16)
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    target = cache_folder() / f"{paths[0].stem}-{digest.hexdigest()}.arrow"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock")):
        if not target.exists():
            with whole_or_absent(target) as beside:
                write(beside)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
