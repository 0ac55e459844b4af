"""The stopwatch: parts that add up, on the host's clock and on a device's."""

from __future__ import annotations

import time

import pytest
import torch

from foreloom.monitoring.record import TIME_PARTS
from foreloom.training.stopwatch import Stopwatch, training_seconds

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


class Clock:
    """Stands still until it is moved."""

    def __init__(self, monkeypatch):
        self.seconds = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.seconds)

    def pass_(self, seconds):
        self.seconds += seconds


def one_step(stopwatch, pass_):
    with stopwatch.part("data_wait"):
        pass_(1)
    with stopwatch.part("forward_backward"):
        pass_(5)
    with stopwatch.part("optimizer"):
        pass_(1)
        with stopwatch.part("communication"):
            pass_(2)
        pass_(1)
    pass_(0.5)
    stopwatch.end_step()


def test_parts_add_up_and_an_inner_part_is_taken_from_the_outer(monkeypatch):
    clock = Clock(monkeypatch)
    stopwatch = Stopwatch(CPU)
    clock.pass_(1000)
    stopwatch.reset()
    one_step(stopwatch, clock.pass_)
    with stopwatch.part("evaluation"):
        clock.pass_(30)
    with stopwatch.part("checkpoint"):
        clock.pass_(40)
    one_step(stopwatch, clock.pass_)
    clock.pass_(0.25)
    lap = stopwatch.read()
    assert lap.seconds_by_part == {
        "data_wait": 2, "forward_backward": 10, "optimizer": 4, "communication": 4, "evaluation": 30,
        "checkpoint": 40, "other": 1.25,
    }  # fmt: skip
    assert lap.step_seconds == [10.5, 10.5]  # evaluation and checkpoint are no part of a step
    assert training_seconds(lap) == 21.25


def test_reading_begins_anew_and_loses_nothing(monkeypatch):
    clock = Clock(monkeypatch)
    stopwatch = Stopwatch(CPU)
    clock.pass_(1)
    assert sum(stopwatch.read().seconds_by_part.values()) == 1
    with stopwatch.part("checkpoint"):
        clock.pass_(2)
        assert stopwatch.read().seconds_by_part["checkpoint"] == 2  # also in the middle of a part
        clock.pass_(3)
    assert stopwatch.read().seconds_by_part == dict.fromkeys(TIME_PARTS, 0.0) | {"checkpoint": 3.0}


class Device:
    """A stream that works through what it is given; the host gives it work without waiting."""

    def __init__(self, monkeypatch):
        self.host, self.free_at, self.num_waits = 0.0, 0.0, 0
        device = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.seconds = max(device.host, device.free_at)

            def synchronize(self):
                device.num_waits += 1
                device.host = max(device.host, self.seconds)

            def elapsed_time(self, other):
                return (other.seconds - self.seconds) * 1000

        monkeypatch.setattr(torch.cuda, "Event", Event)

    def launch(self, seconds):
        self.free_at = max(self.host, self.free_at) + seconds


def test_on_cuda_the_device_is_timed_and_waited_for_when_read_only(monkeypatch):
    device = Device(monkeypatch)
    stopwatch = Stopwatch(CUDA)
    for data_seconds in (1.0, 3.0, 9.0):  # of the host; the device is busy for 5 a step
        with stopwatch.part("data_wait"):
            device.host += data_seconds
        with stopwatch.part("forward_backward"):
            device.launch(4.0)
        with stopwatch.part("optimizer"):
            device.launch(1.0)
        stopwatch.end_step()
    assert device.num_waits == 0
    lap = stopwatch.read()
    assert device.num_waits == 1
    # The first wait keeps an idle device waiting, the second hides behind its work, the third outlasts it by 2.
    assert lap.seconds_by_part["data_wait"] == pytest.approx(1 + 0 + 2)
    assert lap.seconds_by_part["forward_backward"] == pytest.approx(12)
    assert lap.seconds_by_part["optimizer"] == pytest.approx(3)
    assert lap.step_seconds == pytest.approx([6, 5, 7])
    assert sum(lap.seconds_by_part.values()) == pytest.approx(device.host)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_events_of_a_device_tell_its_work_from_the_host_s():
    stopwatch = Stopwatch(CUDA)
    torch.cuda._sleep(1000)
    stopwatch.read()
    with stopwatch.part("forward_backward"):
        torch.cuda._sleep(200_000_000)  # cycles: a tenth of a second or more
    with stopwatch.part("data_wait"):
        time.sleep(0.02)  # hides behind it
    stopwatch.end_step()
    torch.cuda.synchronize()
    with stopwatch.part("data_wait"):
        time.sleep(0.05)  # does not
    stopwatch.end_step()
    lap = stopwatch.read()
    assert lap.seconds_by_part["forward_backward"] > 0.06
    assert 0.04 < lap.seconds_by_part["data_wait"] < 0.1
    assert sum(lap.step_seconds) == pytest.approx(training_seconds(lap), rel=0.05)
