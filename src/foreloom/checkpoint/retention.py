"""Which checkpoints stay: a pure function of their steps and scores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    step: int
    score: float | None = None
    """Lower is better; None or NaN where the step was not scored."""
    needed: bool = False
    """Kept whatever its age and score: a final one, or the one a run will end with."""


def steps_to_keep(checkpoints: Iterable[Candidate], *, num_latest: int, num_best: int) -> set[int]:
    """The `num_latest` newest (0: all), the `num_best` of lowest score (the newer of equals), and every needed one."""
    newest_first = sorted(checkpoints, key=lambda c: c.step, reverse=True)
    latest = newest_first[:num_latest] if num_latest else newest_first
    scored = [(c.score, -c.step) for c in newest_first if c.score is not None and not math.isnan(c.score)]
    best = {-negative for _, negative in sorted(scored)[:num_best]}
    return {c.step for c in latest} | best | {c.step for c in newest_first if c.needed}
