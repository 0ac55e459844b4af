"""Meters: the running figures of a run, small enough to travel in every checkpoint."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any


class LossMeter:
    """First, last, best and smoothed loss over the logged steps. Non-finite losses leave every figure as it was."""

    EMA_ALPHA = 0.05
    """Weight of the newest loss: a memory of about 20 logged steps."""
    MILESTONE_DROP = 0.1
    """A milestone is a loss this share below the one of the milestone before."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last: float | None = None
        self.best: float | None = None
        self.best_step: int | None = None
        self.ema: float | None = None
        self.milestone: float | None = None
        self.num_milestones = 0

    def update(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            return
        self.last = loss
        if self.first is None or self.best is None or self.ema is None or self.milestone is None:
            self.first = self.best = self.ema = self.milestone = loss
            self.best_step = step
            return
        self.ema += self.EMA_ALPHA * (loss - self.ema)
        if loss < self.best:
            self.best, self.best_step = loss, step
        if loss <= self.milestone * (1 - self.MILESTONE_DROP):
            self.milestone = loss
            self.num_milestones += 1

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)


class GradNormMeter:
    """How the gradient norm before clipping compares with the ten logged before it."""

    WINDOW = 10
    SURGE = 5.0
    """A norm this many times the window's mean gets a warning mark in the log line."""
    EXPLOSION = 10.0
    """A norm this many times the window's mean, or a non-finite one, counts as an explosion."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=self.WINDOW)
        self.num_explosions = 0

    def update(self, norm: float) -> bool:
        """Take in the norm of a logged step; True where it deserves a warning mark. No verdict before ten norms."""
        if not math.isfinite(norm):
            self.num_explosions += 1
            return True
        mean = sum(self.recent) / len(self.recent) if len(self.recent) == self.WINDOW else math.inf
        self.num_explosions += norm > self.EXPLOSION * mean
        self.recent.append(norm)
        return norm > self.SURGE * mean

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self.recent), "num_explosions": self.num_explosions}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.recent = deque(state["recent"], maxlen=self.WINDOW)
        self.num_explosions = state["num_explosions"]
