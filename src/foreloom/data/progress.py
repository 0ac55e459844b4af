"""A progress bar over bytes, for work long enough to want one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

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
