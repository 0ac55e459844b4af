import os
import signal
import subprocess
import sys
import time

import pytest

from foreloom.training.signals import StopRequest, exit_code


@pytest.fixture
def ctrl_c_is_heard():
    """A process that a shell began in the background has Ctrl-C ignored from birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform != "linux", reason="waits by a mutex of Linux")
def test_a_second_signal_ends_a_process_that_comes_to_no_instruction_of_its_own() -> None:
    """As a rank that waits for another: Python's own handlers are not called until it has come."""
    script = """
import ctypes, logging, os, signal, sys, threading, time
from foreloom.training.signals import StopRequest
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
def send():
    for pause in (0.2, 1.2):
        time.sleep(pause)
        os.kill(os.getpid(), signal.SIGTERM)
StopRequest.GRACE_SECONDS = 0.2
with StopRequest():
    threading.Thread(target=send, daemon=True).start()
    mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    for _ in range(2):  # the second time for ever
        c.pthread_mutex_lock(mutex)
"""
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=25)
    assert ended.returncode == 143, ended.stderr
    assert ended.stdout.count("Again to stop at once") == 1 and time.monotonic() - began < 25


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_the_first_signal_is_kept_its_echo_ignored_and_a_later_one_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal_number == signal.SIGTERM
        stop._asked_at -= 2.0
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1, "given back"
    assert (exit_code(signal.SIGINT), exit_code(signal.SIGTERM), exit_code(0)) == (130, 143, 0)
