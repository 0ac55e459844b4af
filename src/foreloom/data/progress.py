"""A progress bar for conversions long enough to want one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHOWN_FROM_BYTES = 64 * 2**20


@contextmanager
def conversion_bar(what: str, num_bytes: int) -> Iterator[Callable[[int], None]]:
    """Yields advance(num_bytes). Draws on a terminal's stderr only, and only for large inputs."""
    if num_bytes < SHOWN_FROM_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"converting {what} once", total=num_bytes)
        yield lambda amount: progress.advance(task, amount)
