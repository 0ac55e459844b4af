"""The cache of converted data: a file that cannot be mapped is rewritten once as Arrow, then mapped."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from hashlib import blake2b
from pathlib import Path

from foreloom.files import whole_or_absent

FORMAT_VERSION = 5
"""Part of every key: raise it when a converter writes something else for the same file."""

FILE_MAGIC = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def cache_folder() -> Path:
    """`FORELOOM_CACHE`, or ~/.cache/foreloom."""
    return Path(os.environ.get("FORELOOM_CACHE") or Path.home() / ".cache" / "foreloom")


def cached(paths: Sequence[Path], write: Callable[[Path], None], variant: str = "") -> Path:
    """The Arrow file made of `paths`; `write(path)` makes it where it is missing.

    The key holds the paths, sizes and times of the sources, so a changed file is converted again, and `variant`, what
    `write` was told. The file is written under another name and renamed, so it is whole or absent; one that was cut
    short since is made anew. Ranks of one machine wait for the one that writes.
    """
    digest = blake2b(f"{FORMAT_VERSION}{variant}".encode(), digest_size=16)
    for path in paths:
        digest.update(f"{state_of(path)}\n".encode())
    target = cache_folder() / f"{paths[0].stem}-{digest.hexdigest()}.arrow"
    if _is_whole(target):
        return target
    with locked(target.with_suffix(".lock")):
        if not _is_whole(target):
            with whole_or_absent(target) as beside:
                write(beside)
    return target


def state_of(path: Path) -> str:
    """Where a file lies, its size and times: other ones after any change to it."""
    stat = path.stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"


def _is_whole(path: Path) -> bool:
    """Is the file there, and does it end as Arrow files do?"""
    if not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_STREAM_END)))
        return file.read().endswith((_STREAM_END, FILE_MAGIC))


@contextmanager
def locked(path: Path) -> Generator[None]:
    """One process of this machine at a time, the others waiting without end; ValueError where the cache cannot be
    written, before anything is converted."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise ValueError(
            f"{path.parent}: the cache of converted data cannot be written ({error.strerror}). Set FORELOOM_CACHE to a "
            "folder that can."
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


SHOWN_FROM_BYTES = 64 * 2**20
LINE_SECONDS = 60.0


@contextmanager
def byte_bar(what: str, num_bytes: int) -> Generator[Callable[[int], None]]:
    """Yields advance(num_bytes), for large inputs: draws a bar on a terminal's stderr, writes a line a minute to
    another. Not to the log of a run: there may be none yet."""
    if num_bytes < SHOWN_FROM_BYTES:
        yield lambda _: None
    elif not sys.stderr.isatty():
        yield _lines_of(what, num_bytes)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(what, total=num_bytes)
            yield lambda amount: progress.advance(task, amount)


def _lines_of(what: str, num_bytes: int) -> Callable[[int], None]:
    done, next_line = 0, time.monotonic() + LINE_SECONDS

    def advance(amount: int) -> None:
        nonlocal done, next_line
        done += amount
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + LINE_SECONDS
            share = min(1.0, done / num_bytes)
            print(f"{what}: {share:.0%} of {num_bytes / 2**20:,.0f} MB", file=sys.stderr, flush=True)

    return advance


def conversion_bar(what: str, num_bytes: int) -> AbstractContextManager[Callable[[int], None]]:
    """The bar of a file that is converted once."""
    return byte_bar(f"converting {what} once", num_bytes)
