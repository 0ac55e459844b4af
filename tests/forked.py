"""Ranks that begin with torch and foreloom imported: a server forks them, so that each starts in a tenth of a second.

A forked rank runs a script as its main program, ends as any Python process does, and is to its test what Popen is.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_server: subprocess.Popen[str] | None = None
_codes: dict[int, int] = {}


class Rank:
    """A process of the server; `start_script` makes it."""

    def __init__(self, script: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._files = [tempfile.NamedTemporaryFile() for _ in "oe"]  # noqa: SIM115, they live as long as this
        names = [file.name for file in self._files]
        asked = {"argv": [str(script), *arguments], "environment": dict(environment), "cwd": os.getcwd()}
        self.pid = _ask(asked | {"files": names})
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            _listen()
            self.returncode = _codes.pop(self.pid, None)
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a rank", timeout, *self.output())
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def output(self) -> tuple[str, str]:
        """What it has printed so far, and what to stderr."""
        out, err = (Path(file.name).read_text(errors="replace") for file in self._files)
        return out, err


def _ask(asked: Mapping[str, object]) -> int:
    """Have a process forked; its id."""
    global _server
    if _server is None or _server.poll() is not None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        _server = subprocess.Popen(
            [sys.executable, __file__], env=os.environ | threads, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, bufsize=1,
        )  # fmt: skip
    assert _server.stdin
    _server.stdin.write(json.dumps(asked) + "\n")
    while True:
        if (said := _next_line(timeout=120)) and said[0] == "started":
            return said[1]


def _listen() -> None:
    while _next_line(timeout=0):
        pass


def _next_line(timeout: float) -> list | None:
    """A line of the server's, noted where it tells of an end."""
    assert _server and _server.stdout
    if not select.select([_server.stdout], [], [], timeout)[0]:
        return None
    said = json.loads(os.read(_server.stdout.fileno(), 64))
    if said[0] == "ended":
        _codes[said[1]] = said[2]
    return said


def serve() -> None:
    """Forks what is asked for on stdin, a line each, until that ends; tells of starts and ends on stdout."""
    import foreloom.run.composition  # noqa: F401
    import toy_run  # noqa: F401

    assert threading.active_count() == 1, "a fork has the thread that forks and no other"
    tell = lambda *words: os.write(1, json.dumps(words).ljust(63).encode() + b"\n")
    ears, mouth = os.pipe()
    for end in (ears, mouth):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(mouth)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alive: set[int] = set()
    while True:
        ready, _, _ = select.select([0, ears], [], [])
        if ears in ready:
            os.read(ears, 1024)
            for pid in list(alive):
                if (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    alive.discard(pid)
                    tell("ended", pid, os.waitstatus_to_exitcode(ended[1]))
        if 0 in ready:
            if not (line := sys.stdin.readline()):
                break
            if not (pid := os.fork()):
                be(**json.loads(line))
                return
            alive.add(pid)
            tell("started", pid)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def be(argv: list[str], environment: Mapping[str, str], cwd: str, files: Sequence[str]) -> None:
    """Become the program that is asked for."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in enumerate(("/dev/null", *files)):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if sys.platform != "linux":  # where a library may have threads of its own by now
        os.execv(sys.executable, [sys.executable, *argv])
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
