"""What a rank waits for: said where it takes long, with the ranks that have not come."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

PATIENCE_SECONDS = 30.0
"""A rank that waits longer says so, once a wait."""

_watch: Watch | None = None


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Surrounds what this rank cannot do without the others. All ranks enter the same ones in the same order.

    What a thread beside training waits for holds nothing up, and is not watched.
    """
    if _watch is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _watch.begin(what)
    try:
        yield
    finally:
        _watch.since = None


class Watch(threading.Thread):
    """Looks at what this rank waits for. Ranks that have waited for a moment leave their mark in `store`."""

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        super().__init__(name="foreloom-watch", daemon=True)
        self.since: float | None = None
        self._store, self._rank, self._world_size = store, rank, world_size
        self._number, self._what = 0, ""
        self._has_ended = threading.Event()
        global _watch
        _watch = self
        self.start()

    def begin(self, what: str) -> None:
        """A wait begins."""
        self._what = what
        self._number += 1
        self.since = time.monotonic()

    def end(self) -> None:
        """No more is watched."""
        global _watch
        _watch = None
        self._has_ended.set()

    def run(self) -> None:
        pause, marked, told = PATIENCE_SECONDS / 10, 0, 0
        while not self._has_ended.wait(pause):
            number, what, since = self._number, self._what, self.since
            seconds = 0.0 if since is None else time.monotonic() - since
            try:
                if seconds > pause and marked < number:
                    self._store.set(f"waits/{number}/{self._rank}", "")
                    marked = number
                # Whoever came just before the patience was at its end has left a mark by then.
                if seconds > PATIENCE_SECONDS + 2 * pause and told < number:
                    self._tell(number, what, seconds)
                    told = number
            except RuntimeError:  # the store is gone, and with it the rank that kept it: this rank will soon know
                return

    def _tell(self, number: int, what: str, seconds: float) -> None:
        """One rank says it for all."""
        here = [rank for rank in range(self._world_size) if self._store.check([f"waits/{number}/{rank}"])]
        absent = [str(rank) for rank in range(self._world_size) if rank not in here]
        if absent and self._rank == min(here):
            whom = f"rank{'s' if len(absent) > 1 else ''} {', '.join(absent)}"
            sentence = f"rank {self._rank} has waited {seconds:.0f} s for {whom} ({what})"
            print(f"warning: {sentence}; parallel.timeout_minutes says when it gives up", file=sys.stderr, flush=True)
