"""The cache of converted data: a file that cannot be mapped is rewritten once as Arrow, then mapped."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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
    with locked(target.with_suffix(".lock")):
        if not target.exists():
            with whole_or_absent(target) as beside:
                write(beside)
    return target


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock between processes of this machine; waits for whoever has it, without end."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


SHOWN_FROM_BYTES = 64 * 2**20


@contextmanager
def byte_bar(what: str, num_bytes: int) -> Iterator[Callable[[int], None]]:
    """Yields advance(num_bytes). Draws on a terminal's stderr only, and only for large inputs."""
    if num_bytes < SHOWN_FROM_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=num_bytes)
        yield lambda amount: progress.advance(task, amount)


def conversion_bar(what: str, num_bytes: int) -> AbstractContextManager[Callable[[int], None]]:
    """The bar of a file that is converted once."""
    return byte_bar(f"converting {what} once", num_bytes)
