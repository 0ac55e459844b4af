"""Where the lines of a run go: the console and training.log; what is said before there is a log waits for it."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from contextlib import suppress
from pathlib import Path

LOG_NAME = "training.log"

logger = logging.getLogger("foreloom")


class EarlyLines(logging.handlers.MemoryHandler):
    """Keeps the lines said while a run is being put together, until there is a log to write them to.

    A process puts one run together at a time: a new one takes the place of one that was given up.
    """

    def __init__(self, is_main: bool) -> None:
        super().__init__(capacity=1000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        logger.setLevel(logging.INFO if is_main else logging.ERROR)
        for handler in [one for one in logger.handlers if isinstance(one, EarlyLines)]:
            logger.removeHandler(handler)
        logger.addHandler(self)

    def stop(self) -> None:
        """Keep no more."""
        logger.removeHandler(self)

    def say(self) -> None:
        """What was kept, now that there is a log."""
        kept, self.buffer = self.buffer, []
        for record in kept:
            logger.handle(record)


def open_log(run_dir: Path, *, is_main: bool, quiet: bool = False) -> list[logging.Handler]:
    """Send the logger's lines to the console and, on the main rank, to `<run_dir>/training.log` (appended).

    A quiet run prints warnings only, other ranks than the main one errors. Give the handlers to `close_log` at last.
    """
    logger.setLevel(logging.INFO if is_main else logging.ERROR)
    screen = _Screen(sys.stdout)
    screen.setLevel(logging.WARNING if quiet else logging.INFO)
    handlers: list[logging.Handler] = [screen]
    if is_main:
        run_dir.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(run_dir / LOG_NAME, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(_Line())
        logger.addHandler(handler)
    return handlers


def close_log(handlers: list[logging.Handler]) -> None:
    for handler in handlers:
        logger.removeHandler(handler)
        with suppress(OSError):  # the lines a full disk refused, which were warned of
            handler.close()
    logger.setLevel(logging.NOTSET)  # what comes after the run in this process has no log to speak to


class _Line(logging.Formatter):
    """The bare message, so that log lines stay as they are documented; warnings and errors say what they are."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


class _Lasting(logging.Handler):
    """Where the operating system refuses a line (full disk, closed pipe), says so once and drops the lines."""

    output: str
    _warned = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._warned:
            self._warned = True
            print(f"warning: {self.output} cannot be written ({error}); the run goes on without it", file=sys.stderr)


class _Screen(_Lasting, logging.StreamHandler):
    output = "the console"

    def format(self, record: logging.LogRecord) -> str:
        encoding = self.stream.encoding or "utf-8"
        return super().format(record).encode(encoding, "replace").decode(encoding)  # boxes on an ASCII console: ???


class _LogFile(_Lasting, logging.FileHandler):
    output = LOG_NAME
