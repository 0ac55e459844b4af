"""Meters: the running figures of a run, small enough to travel in every checkpoint."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from foreloom.monitoring.record import BenchmarkRecord, SaveRecord, StepRecord, ValidationRecord

NUM_RECENT = 40
"""Logged values that a sparkline is drawn from."""


class LossMeter:
    """First, last, best and smoothed loss over the logged steps. Non-finite losses leave every figure as it was."""

    EMA_ALPHA = 0.05
    """Weight of the newest loss: a memory of about 20 logged steps. The averages are bias-corrected as Adam's are
    (Kingma and Ba, 2015): of a run younger than its memory they are means of what there is."""
    SLOW_ALPHA = 0.01
    """The same for the slow average: about 100 logged steps."""
    MILESTONE_DROP = 0.1
    """A milestone is a loss this share below the one of the milestone before."""
    NUM_MILESTONES_KEPT = 3

    def __init__(self) -> None:
        self.first: float | None = None
        self.first_step: int | None = None
        self.last: float | None = None
        self.last_step: int | None = None
        self.best: float | None = None
        self.best_step: int | None = None
        self.num_losses = 0
        self.ema: float | None = None
        self.slow_ema: float | None = None
        self.milestone: float | None = None
        self.num_milestones = 0
        self.milestones: list[tuple[int, float]] = []
        """Step and loss of the newest ones."""
        self.recent: list[float] = []
        """The newest ones, oldest first."""

    def update(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            return
        self.last, self.last_step = loss, step
        self.recent = [*self.recent, loss][-NUM_RECENT:]
        self.num_losses += 1
        if self.best is None or self.ema is None or self.slow_ema is None or self.milestone is None:
            self.first = self.best = self.ema = self.slow_ema = self.milestone = loss
            self.first_step = self.best_step = step
            return
        self.ema += self._weight(self.EMA_ALPHA) * (loss - self.ema)
        self.slow_ema += self._weight(self.SLOW_ALPHA) * (loss - self.slow_ema)
        if loss < self.best:
            self.best, self.best_step = loss, step
        if loss <= self.milestone * (1 - self.MILESTONE_DROP):
            self.milestone = loss
            self.num_milestones += 1
            self.milestones = [*self.milestones, (step, loss)][-self.NUM_MILESTONES_KEPT :]

    def _weight(self, alpha: float) -> float:
        """Of the newest loss in a bias-corrected average."""
        return alpha / (1 - (1 - alpha) ** self.num_losses)

    @property
    def num_steps(self) -> int:
        """From the first logged step to the last; 0 where there are not two."""
        return self.last_step - self.first_step if self.last_step and self.first_step else 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self.milestones = [(step, loss) for step, loss in self.milestones]  # JSON has no tuples


class GradNormMeter:
    """How the gradient norm before clipping compares with those logged before it."""

    WINDOW = 10
    """A norm is compared with the mean of so many before it."""
    NUM_RECENT = 50
    SURGE = 5.0
    """A norm this many times the window's mean gets a warning mark in the log line."""
    EXPLOSION = 10.0
    """A norm this many times the window's mean, or a non-finite one, counts as an explosion."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=self.NUM_RECENT)
        """The newest finite ones, oldest first."""
        self.num_explosions = 0

    def update(self, norm: float) -> bool:
        """Take in the norm of a logged step; True where it deserves a warning mark. No verdict before ten norms."""
        if not math.isfinite(norm):
            self.num_explosions += 1
            return True
        window = list(self.recent)[-self.WINDOW :]
        mean = sum(window) / len(window) if len(window) == self.WINDOW else math.inf
        self.num_explosions += norm > self.EXPLOSION * mean
        self.recent.append(norm)
        return norm > self.SURGE * mean

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self.recent), "num_explosions": self.num_explosions}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.recent = deque(state["recent"], maxlen=self.NUM_RECENT)
        self.num_explosions = state["num_explosions"]


class LearningRateMeter:
    """The learning rate over the logged steps."""

    def __init__(self) -> None:
        self.peak = 0.0
        """The highest so far."""
        self.recent: list[float] = []
        """The newest ones, oldest first."""

    def update(self, learning_rate: float) -> None:
        self.peak = max(self.peak, learning_rate)
        self.recent = [*self.recent, learning_rate][-NUM_RECENT:]

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)


class TimeMeter:
    """Seconds by part, added up until someone has read them."""

    def __init__(self) -> None:
        self.seconds_by_part: dict[str, float] = {}

    def update(self, seconds_by_part: Mapping[str, float]) -> None:
        for part, seconds in seconds_by_part.items():
            self.seconds_by_part[part] = self.seconds_by_part.get(part, 0.0) + seconds

    def reset(self) -> None:
        self.seconds_by_part = {}

    def state_dict(self) -> dict[str, Any]:
        return {"seconds_by_part": dict(self.seconds_by_part)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seconds_by_part = dict(state["seconds_by_part"])


class Meters:
    """All meters of a run, and the newest record of each kind."""

    def __init__(self) -> None:
        self.loss = LossMeter()
        self.grad_norm = GradNormMeter()
        self.learning_rate = LearningRateMeter()
        self.time = TimeMeter()
        """Since the last health report."""
        self.last: StepRecord | None = None
        self.validation: ValidationRecord | None = None
        self.benchmarks: dict[str, BenchmarkRecord] = {}
        """By tier."""
        self.save: SaveRecord | None = None
        self.peak_memory_bytes: int | None = None

    @property
    def step(self) -> int:
        """That of the newest logging step; 0 before the first."""
        return self.last.step if self.last else 0

    def update(self, record: StepRecord) -> bool:
        """Take in a logging step; True where its gradient norm deserves a warning mark."""
        self.loss.update(record.step, record.loss)
        self.learning_rate.update(record.learning_rate)
        self.time.update(record.seconds_by_part)
        self.last = record
        if record.memory_bytes is not None:
            self.peak_memory_bytes = max(record.memory_bytes, self.peak_memory_bytes or 0)
        return self.grad_norm.update(record.grad_norm)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: for checkpoints, and for the health reports of metrics.jsonl."""
        return {
            "loss": self.loss.state_dict(),
            "grad_norm": self.grad_norm.state_dict(),
            "learning_rate": self.learning_rate.state_dict(),
            "time": self.time.state_dict(),
            "last": asdict(self.last) if self.last else None,
            "validation": asdict(self.validation) if self.validation else None,
            "benchmarks": [asdict(record) for record in self.benchmarks.values()],
            "save": asdict(self.save) if self.save else None,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("loss", "grad_norm", "learning_rate", "time"):
            getattr(self, name).load_state_dict(state[name])
        self.last = StepRecord.from_dict(state["last"]) if state["last"] else None
        self.validation = ValidationRecord(**state["validation"]) if state["validation"] else None
        self.benchmarks = {values["tier"]: BenchmarkRecord(**values) for values in state["benchmarks"]}
        self.save = SaveRecord(**state["save"]) if state.get("save") else None
        self.peak_memory_bytes = state["peak_memory_bytes"]
