"""A stopwatch for the parts of a run that never makes the device wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch

from foreloom.monitoring.record import TIME_PARTS, TimePart

_PAUSES: tuple[TimePart, ...] = ("evaluation", "checkpoint")
"""Parts that are no part of a step."""


class Lap(NamedTuple):
    """What a stopwatch has measured since it was read before."""

    seconds_by_part: dict[str, float]
    """They add up to all of the time."""
    step_seconds: list[float]
    """Of each step ended, without evaluation and checkpoints."""


class _Mark(NamedTuple):
    part: TimePart
    """What begins here."""
    moment: float | torch.cuda.Event
    ends_step: bool


class Stopwatch:
    """Says at every moment which part of a run the time belongs to.

    On CUDA a moment is an event in the stream, passed by the device when it has done all that was asked before: parts
    are as long as they keep the device busy or idle, so waiting for data that the device does not notice costs nothing.
    Elsewhere it is the host's clock; on MPS, which works behind the host's back, parts are what the host spends on
    them.
    """

    def __init__(self, device: torch.device) -> None:
        self._now: Callable[[], float | torch.cuda.Event] = (
            _passing_event if device.type == "cuda" else time.perf_counter
        )
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self._marks = [_Mark("other", self._now(), ends_step=False)]

    @contextmanager
    def part(self, part: TimePart) -> Generator[None]:
        """Time spent here belongs to `part`, also where another part surrounds it."""
        outer = self._marks[-1].part
        self._marks.append(_Mark(part, self._now(), ends_step=False))
        try:
            yield
        finally:
            self._marks.append(_Mark(outer, self._now(), ends_step=False))

    def end_step(self) -> None:
        self._marks.append(_Mark(self._marks[-1].part, self._now(), ends_step=True))

    def read(self) -> Lap:
        """What was measured since the previous reading. Waits for the device."""
        self._marks.append(_Mark(self._marks[-1].part, self._now(), ends_step=False))
        last = self._marks[-1]
        if isinstance(last.moment, torch.cuda.Event):
            last.moment.synchronize()
        lap = Lap(dict.fromkeys(TIME_PARTS, 0.0), [])
        step_seconds = 0.0
        for began, ended in pairwise(self._marks):
            seconds = _between(began.moment, ended.moment)
            lap.seconds_by_part[began.part] += seconds
            if began.part not in _PAUSES:
                step_seconds += seconds
            if ended.ends_step:
                lap.step_seconds.append(step_seconds)
                step_seconds = 0.0
        self._marks = [last]
        return lap


def training_seconds(lap: Lap) -> float:
    """All but evaluation and checkpoints."""
    return sum(seconds for part, seconds in lap.seconds_by_part.items() if part not in _PAUSES)


def _passing_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(began: float | torch.cuda.Event, ended: float | torch.cuda.Event) -> float:
    if isinstance(began, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
        return began.elapsed_time(ended) / 1000
    assert isinstance(began, float) and isinstance(ended, float)
    return ended - began
