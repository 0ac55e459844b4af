"""A stop asked for by SIGTERM, Ctrl-C or a scheduler's SIGUSR1, kept until the step is done."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
import time
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

_ECHO_SECONDS = 1.0


class StopRequest:
    """While entered, the first SIGTERM, SIGINT or SIGUSR1 is remembered in `signal_number` and said; a second one stops
    at once.

    What arrives within a second of the first is the same request: launchers pass a Ctrl-C on to processes that the
    terminal has told already.

    Python acts on a signal between two of its own instructions, and a rank that waits for another comes to none. So a
    thread listens too: it ends the process where a second request is not followed.

    Signals reach the main thread only; in another thread this does nothing.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    GRACE_SECONDS = 5.0
    """For a second request to be followed by Python itself."""

    def __init__(self) -> None:
        self.signal_number = 0
        self._asked_at = 0.0
        self._before: dict[int, object] = {}
        self._mouth: socket.socket | None = None
        self._has_left = threading.Event()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._ears, self._mouth = socket.socketpair()
            self._mouth.setblocking(False)
            self._fd_before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._listen, name="foreloom-signals", daemon=True).start()
            self._before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_left.set()
        if self._mouth:
            signal.set_wakeup_fd(self._fd_before)
            self._mouth.close()
        self._restore()

    def _listen(self) -> None:
        """In a thread of its own: every signal comes as a byte, the end of `_mouth` as none."""
        first = math.inf
        while number := self._ears.recv(1):
            if number[0] not in self.SIGNALS:
                continue
            if math.isinf(first):
                first = time.monotonic()
                logger.info("Stopping: what is under way ends, and a checkpoint is saved. Again to stop at once.")
            elif time.monotonic() - first >= _ECHO_SECONDS and not self._has_left.wait(self.GRACE_SECONDS):
                os._exit(exit_code(number[0]))
        self._ears.close()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and time.monotonic() - self._asked_at < _ECHO_SECONDS:
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
