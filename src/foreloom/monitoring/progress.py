"""How far a long piece of work is, and when it will be done: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from foreloom.monitoring.console import duration

logger = logging.getLogger(__name__)

FIRST_LINE_SECONDS = 10.0
"""After which work that is expected to take longer than a line's interval says so."""
LINE_SECONDS = 60.0
_UPDATES = 1000
"""Of a bar over many pieces, about."""

T = TypeVar("T")


class Progress(AbstractContextManager):
    """While entered, tells of the work called `title`; on a rank that is not `is_shown`, nothing.

    On a terminal that is a bar with the time left, gone when the work is done. Elsewhere the log gets a line a minute,
    the first after ten seconds where the work is expected to take longer than a minute.
    """

    def __init__(self, title: str, is_shown: bool = True) -> None:
        from rich.console import Console

        self.title = title
        self._is_shown = is_shown
        self._console = Console(stderr=True)
        self._bars: Any = None
        self._first: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        self._next_line = time.monotonic() + FIRST_LINE_SECONDS
        if self._is_shown and self._console.is_terminal:
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bars = Bars(*columns, console=self._console, transient=True)
            self._bars.start()
            self._bar = self._bars.add_task(self.title, total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def update(self, share: float, what: str) -> None:
        """So much of 1 is done; `what` is at hand, as `120 of 400 windows`. The first call says where it begins."""
        now = time.monotonic()
        began, first_share = self._first = self._first or (now, share)
        if self._bars:
            self._bars.update(self._bar, description=f"{self.title}: {what}", completed=share, total=1.0)
        elif self._is_shown and first_share < share < 1:
            spent = now - began
            left = spent * (1 - share) / (share - first_share)
            if now >= self._next_line and spent + left > LINE_SECONDS:
                self._next_line = now + LINE_SECONDS
                line = f"{self.title}: {what} ({share:.0%}), {duration(left)} left"
                if logger.isEnabledFor(logging.INFO):  # in a run, whose monitor prints and writes it
                    logger.info(line)
                else:
                    self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def over(self, pieces: Iterable[T], total: int = 0, unit: str = "batches") -> Iterator[T]:
        """The pieces one by one, each counted when the next is asked for; `total` where they do not say how many."""
        total = len(pieces) if isinstance(pieces, Sized) else total
        for done, piece in enumerate(pieces):
            if total and done % max(1, total // _UPDATES) == 0:
                self.update(done / total, f"{done:,} of {total:,} {unit}")
            yield piece
