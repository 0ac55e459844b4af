"""Who trains a run: a lock that one process has, and that a killed one does not keep.

A lock is a file `<name>.<generation>` that only its maker could create (O_EXCL, which network file systems honour too).
Its holder touches it every few seconds. Whoever finds it untouched for `STALE_SECONDS`, by the clock of the file system
and not of any machine, creates the next generation, which again only one can; a holder that wakes up and finds it has
lost the lock. On the machine and in the container of its holder a lock is also free as soon as that process is gone.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from foreloom.files import HERE, is_alive

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class Lock:
    """A lock that this process has. `is_lost` says that another has taken it over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_lost = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="foreloom-lock", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                os.utime(self.path)
                self.is_lost = _newest(self.path.parent, self.path.stem) != self.path
            except FileNotFoundError:
                self.is_lost = True
            except OSError:  # a network file system that is away: it may come back in time
                continue
            if self.is_lost:
                return

    def close(self) -> None:
        """Free the lock, unless it is another's by now; with it those it was taken over from."""
        self._done.set()
        self._thread.join()
        if _newest(self.path.parent, self.path.stem) == self.path:
            for path in _generations(self.path.parent, self.path.stem):
                path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, name: str) -> Generator[Lock | str]:
    """The lock of a name in a folder for the time of the block, or in words who has it."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = _newest(folder, name)
    if newest is not None and (holder := _holder(newest)):
        yield holder
        return
    generation = int(newest.suffix[1:]) + 1 if newest else 1
    path = folder / f"{name}.{generation}"
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump({"here": HERE, "host": socket.gethostname(), "pid": os.getpid()}, file)
    except FileExistsError:
        yield "another process, which was faster"
        return
    lock = Lock(path)
    try:
        yield lock
    finally:
        lock.close()


def holder_of(folder: Path, name: str) -> str:
    """In words who has a lock; empty where nobody has."""
    newest = _newest(folder, name) if folder.is_dir() else None
    return _holder(newest) if newest else ""


def _generations(folder: Path, name: str) -> list[Path]:
    paths = [path for path in folder.iterdir() if path.stem == name and path.suffix[1:].isdecimal()]
    return sorted(paths, key=lambda path: int(path.suffix[1:]))


def _newest(folder: Path, name: str) -> Path | None:
    return next(reversed(_generations(folder, name)), None)


def _holder(path: Path) -> str:
    """In words; empty where it is gone, or has not touched the lock for too long."""
    try:
        age = _now(path.parent) - path.stat().st_mtime
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    if age > STALE_SECONDS:
        return ""
    if not text:  # its maker is writing it, or was killed as it did
        return "another process, which has just begun"
    who = json.loads(text)
    if who["here"] == HERE and not is_alive(who["pid"]):
        return ""
    return f"process {who['pid']} on {who['host']}"


def _now(folder: Path) -> float:
    """By the clock that gives files their times."""
    probe = folder / f".now-{HERE}-{os.getpid()}-{threading.get_ident()}"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now
