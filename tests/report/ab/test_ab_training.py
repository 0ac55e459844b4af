"""The process of a training: its memory, its failure, its end on demand. Other programs stand in for trainings."""

from __future__ import annotations

import resource
import sys
import time
from types import SimpleNamespace

import pytest

from foreloom.report.ab.plan import Training
from foreloom.report.ab.training import Job, peak_of, train

GO_ON = SimpleNamespace(signal_number=0)


@pytest.fixture
def job(tmp_path):
    """job(program) of Python."""
    folder = tmp_path / "A-seed-1"
    folder.mkdir()

    def build(program: str) -> Job:
        return Job(Training("A", 1, 5), None, [sys.executable, "-S", "-c", program], folder)  # type: ignore[arg-type]

    return build


def test_a_failure_shows_the_last_lines(job):
    outcome = train(job("for i in range(50): print('line', i, flush=True)\nraise SystemExit('error: no luck')"), GO_ON)
    assert outcome.exit_code == 1
    first, *shown = outcome.failure.splitlines()
    assert first.startswith("A-seed-1 failed (exit code 1); the end of ") and first.endswith("A-seed-1.log:")
    assert shown[-2:] == ["line 49", "error: no luck"]
    assert len(shown) == 12


def test_a_process_that_is_killed_has_failed(job):
    outcome = train(job("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), GO_ON)
    assert outcome.exit_code == -9 and "signal 9" in outcome.failure


def test_memory_is_that_of_the_largest_session(job):
    # A process's peak begins with its parent's, which is that of all tests so far.
    parent_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    num_bytes = (parent_mib + 200) << 20
    assert train(job(f"x = bytearray({num_bytes}); x[::4096] = bytes(len(x[::4096]))"), GO_ON).failure is None
    peak_bytes = peak_of(job("").folder)
    assert num_bytes < peak_bytes < num_bytes + (200 << 20)
    train(job("pass"), GO_ON)
    assert peak_of(job("").folder) == peak_bytes


def test_a_stop_is_passed_on(job):
    asked = SimpleNamespace(signal_number=15)
    began = time.monotonic()
    ready = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\ntime.sleep(60)"
    outcome = train(job(ready), asked)
    assert outcome.exit_code in (143, -15)  # told before its handler stood
    assert time.monotonic() - began < 20
