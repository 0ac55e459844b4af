import os
import signal

import pytest

from foreloom.training.signals import StopRequest, exit_code


@pytest.fixture
def ctrl_c_is_heard():
    """A process that a shell began in the background has Ctrl-C ignored from birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
    assert (exit_code(signal.SIGINT), exit_code(signal.SIGTERM), exit_code(0)) == (130, 143, 0)
