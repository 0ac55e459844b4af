"""A stop asked for by SIGTERM or Ctrl-C, kept until the step is done."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is remembered in `signal_number`; a second one stops at once.

    What arrives within a second of the first is the same request: launchers pass a Ctrl-C on to processes that the
    terminal has told already.

    Signals reach the main thread only; in another thread this does nothing.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal_number = 0
        self._asked_at = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and time.monotonic() - self._asked_at < 1.0:
            return
        if self.signal_number:
            self._restore()
            os.kill(os.getpid(), number)
        self.signal_number = number
        self._asked_at = time.monotonic()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}


def exit_code(signal_number: int) -> int:
    """What a shell shows for a process ended by this signal: 130 for Ctrl-C, 143 for SIGTERM; 0 for none."""
    return 128 + signal_number if signal_number else 0
