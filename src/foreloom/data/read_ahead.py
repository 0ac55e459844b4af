"""Read-ahead: an iterator whose next items are made by a background thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Iterates over `items`, at most `depth` of them made before they are asked for.

    An exception in the thread is raised, as it is, where the item would have been handed out. `close` stops the thread
    and waits for it; it may be called from any thread and more than once.
    """

    def __init__(self, items: Iterator[T], depth: int):
        assert depth >= 1
        self._items = items
        self._depth = depth
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._finished = False
        self._closed = False
        self.num_taken = 0
        """Items handed out."""
        self.num_ready_when_taken = 0
        """Summed over those: items that lay ready, the one handed out among them."""
        # A daemon, so that a run that dies without closing its loader still ends.
        self._thread = threading.Thread(target=self._work, name="foreloom-read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            num_ready = len(self._ready)
            self._changed.wait_for(lambda: self._ready or self._finished or self._closed)
            if self._closed:
                raise StopIteration
            if self._ready:
                item = self._ready.popleft()
                self.num_taken += 1
                self.num_ready_when_taken += num_ready
                self._changed.notify_all()
                return item
        if self._failure is not None:
            raise self._failure
        raise StopIteration

    @property
    def num_ready(self) -> int:
        """Items that lie ready."""
        return len(self._ready)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
                item = next(self._items, self)
                with self._changed:
                    if item is self:
                        return
                    self._ready.append(item)  # type: ignore[arg-type]
                    self._changed.notify_all()
        except Exception as failure:  # whatever it is, it belongs to the reader of the items
            self._failure = failure
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()
