"""Which architecture falls faster with compute, and what does the one need for what the other reaches? Frontiers of
several studies, their exponents by the E assumed and by the window of compute, and the compute-equivalent gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foreloom.lab.fit.frontier import (
    ASSUMED_SHARES,
    INTERVAL,
    WIDE,
    Compute,
    PowerLaw,
    bootstrap_exponents,
    compute_equivalent_gain,
    fit_power,
    frontier,
)
from foreloom.lab.fit.runs import Run, Study, read_study

NUM_GAINS = 40
FEWEST_POINTS = 4
Window = tuple[float, float]


@dataclass(frozen=True)
class Course:
    """The frontier of one study."""

    name: str
    runs: tuple[Run, ...]
    compute: Compute
    window: Window

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        return frontier(self.runs, compute=self.compute, window=self.window)[:2]

    def law(self, E: float | None) -> PowerLaw:
        return fit_power(*self.points(), E=E, num_runs=len(self.runs))


@dataclass(frozen=True)
class Exponent:
    """A row of the table."""

    name: str
    window: Window
    law: PowerLaw
    interval: tuple[float, float] | None
    """95 %, by the sets of runs drawn, the bias of losing runs in it; None where E was free."""
    doubt: str = ""
    """Of a free E: why it is none; of windows that do not agree on it, too."""


@dataclass(frozen=True)
class Gain:
    """How many times the compute `base` needs for what `other` reaches, where both were measured."""

    C_G: np.ndarray
    gain_G: np.ndarray
    low_G: np.ndarray
    high_G: np.ndarray
    E: float


def courses_of(paths: Sequence[Path], *, compute: Compute = "6nd", window: Window = (0, math.inf)) -> list[Course]:
    """A frontier a folder; of one folder that holds several architectures, one each. ValueError for what has no runs,
    and no FLOPs where those counted are asked for."""
    studies = [read_study(path) for path in paths]
    found = [course for study in studies for course in courses_within(study, compute=compute, window=window)]
    for course in found:
        if len(course.points()[0]) < FEWEST_POINTS:
            raise ValueError(
                f"{course.name}: {len(course.points()[0])} points on its frontier within {window[0]:.3g} to "
                f"{window[1]:.3g} FLOPs ({compute}): widen the window, or run more."
            )
    return found


def courses_within(study: Study, *, compute: Compute = "6nd", window: Window = (0, math.inf)) -> list[Course]:
    """By architecture, as the configurations name it."""
    of_kind: dict[str, list[Run]] = {}
    for run in study.runs:
        of_kind.setdefault(str(run.facts.get("architecture", "")), []).append(run)
    name = study.path.resolve().name
    return [
        Course(f"{name}: {kind}" if len(of_kind) > 1 else name, tuple(runs), compute, window)
        for kind, runs in of_kind.items()
    ]


def exponents(course: Course, assumed: Sequence[float] | None = None, num_bootstrap: int = 200) -> list[Exponent]:
    """With E free and assumed (default: at shares of the lowest loss) over the whole, and the upper two thirds and the
    upper third of the decades of compute."""
    x, loss = course.points()
    assumed = assumed or [share * float(loss.min()) for share in ASSUMED_SHARES]
    low, high = math.log(x[0]), math.log(x[-1])
    windows = [(math.exp(low + share * (high - low)), float(x[-1])) for share in (0, 1 / 3, 2 / 3)]
    rows = []
    for window in windows:
        inside = x >= window[0] * (1 - 1e-9)
        if inside.sum() < FEWEST_POINTS:
            continue
        num_runs = len(course.runs)
        rows.append(Exponent(course.name, window, fit_power(x[inside], loss[inside], E=None, num_runs=num_runs), None))
        wide = (window[0] * (1 - 1e-9), window[1] * (1 + 1e-9))
        drawn = bootstrap_exponents(course.runs, assumed, compute=course.compute, window=wide, num=num_bootstrap)
        for place, E in enumerate(assumed):
            if float(loss[inside].min()) <= E:
                continue
            law = fit_power(x[inside], loss[inside], E=E, num_runs=num_runs)
            values = drawn[:, place][np.isfinite(drawn[:, place])]
            half = 1.96 * math.sqrt(float(np.mean((values - law.exponent) ** 2))) if len(values) >= 20 else math.nan
            ends = (law.exponent - half, law.exponent + half)
            rows.append(Exponent(course.name, window, law, ends if math.isfinite(half) else None))
    return _with_doubts(rows)


def _with_doubts(rows: Sequence[Exponent]) -> list[Exponent]:
    """A free E is a finding only if every window finds it."""
    free = [row.law for row in rows if row.law.E_interval is not None]
    found = [law.E for law in free]
    agree = max(found) - min(found) <= WIDE * max(found) and not any(law.doubt for law in free)
    return [
        replace(row, doubt=row.law.doubt or ("" if agree else "windows of compute do not agree on E"))
        if row.law.E_interval is not None
        else row
        for row in rows
    ]


def gain_of(base: Course, other: Course, *, E: float, num_bootstrap: int = 200, seed: int = 0) -> Gain | None:
    """None where no compute of the other reaches a loss that the base was measured at."""
    law_base, law_other = base.law(E), other.law(E)
    (x_base, _), (x_other, _) = base.points(), other.points()
    C = np.geomspace(x_other.min(), x_other.max(), NUM_GAINS)
    needed = np.array([law_base.cost(float(law_other.predict(one))) for one in C])
    C = C[(needed >= x_base.min()) & (needed <= x_base.max())]
    if len(C) < 2:
        return None
    gains = lambda one, two: [compute_equivalent_gain(one, two, float(at)) for at in C]
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(num_bootstrap):
        laws = []
        for course in (base, other):
            chosen = sorted(set(generator.integers(len(course.runs), size=len(course.runs)).tolist()))
            again = Course(course.name, tuple(course.runs[i] for i in chosen), course.compute, course.window)
            x, loss = again.points()
            if len(x) >= FEWEST_POINTS and loss.min() > E:
                laws.append(fit_power(x, loss, E=E))
        if len(laws) == 2:
            drawn.append(gains(*laws))
    low, high = np.quantile(drawn, INTERVAL, axis=0) if len(drawn) >= 20 else (np.full(len(C), math.nan),) * 2
    return Gain(C, np.array(gains(law_base, law_other)), low, high, E)
