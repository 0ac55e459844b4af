"""Which laws do these runs allow? Every fit that they do, side by side with intervals, and in words what they cannot
tell: sizes that move together, an E that hangs on the window, a lowest point at the edge.

Axes: P points.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from foreloom.lab.fit.allocation import (
    Allocation,
    Parabola,
    bootstrap_first,
    bootstrap_second,
    first_approach,
    fit_parabolas,
    second_approach,
)
from foreloom.lab.fit.frontier import ASSUMED_SHARES, INTERVAL, PowerLaw, fit_power, pareto
from foreloom.lab.fit.parametric import DELTA, FEWEST_POINTS, Loss, ParametricFit, bootstrap, fit_parametric
from foreloom.lab.fit.points import Points, read_points
from foreloom.lab.fit.prediction import Prediction, predict_held_out, split_held_out
from foreloom.lab.fit.runs import Study, check_there, read_study

T = TypeVar("T")

COLLINEAR = 0.05
"""Standard deviation of log(D / N^slope) below which N and D are one variable."""
DROPPED = (0, 1, 2, 5, 10)
DELTAS = (1e-4, 1e-3, 1e-2, 1e-1)
MOST_DROPPED_SHARE = 0.1
BOOTSTRAP_SMALL = 30
"""Points below which intervals of drawn runs are themselves uncertain."""


@dataclass(frozen=True)
class Options:
    """How to fit."""

    loss: Loss = "huber"
    delta: float = DELTA
    drop_worst: int = 0
    num_bootstrap: int = 400
    window: float = math.inf
    """Of approach 2, see `fit_parabola`."""
    robust: bool = True
    hold_out: str = ""
    """`largest`, or labels with commas between."""
    non_embedding: bool = False
    E: float | None = None
    """Assumed, in nats; found where it is None."""
    predictions_only: bool = False
    """Without what no prediction needs: approaches 1 and 2, and what the third hangs on."""


@dataclass(frozen=True)
class Approach:
    """A row of the table of approaches: how the best N and D grow with compute."""

    name: str
    a: float
    b: float
    a_interval: tuple[float, float] | None
    allocation: Callable[[float], tuple[float, float]]
    remark: str


@dataclass(frozen=True)
class Sensitivity:
    """The third approach with one choice made otherwise."""

    change: str
    fit: ParametricFit
    num_points: int


@dataclass(frozen=True)
class Findings:
    """What was found. What a set of runs does not allow is absent, and `doubts` say why."""

    source: Path
    points: Points
    study: Study | None
    approaches: tuple[Approach, ...]
    parametric: ParametricFit | None
    drawn: tuple[ParametricFit, ...]
    """The third approach of sets of runs drawn with replacement."""
    parabolas: tuple[Parabola, ...]
    drawn_parabolas: tuple[tuple[Parabola, ...], ...]
    sensitivities: tuple[Sensitivity, ...]
    power: tuple[PowerLaw, ...]
    """Of the final loss over compute: E free first, then assumed."""
    predictions: tuple[Prediction, ...]
    doubts: tuple[str, ...]

    def interval(self, name: str) -> tuple[float, float] | None:
        """Of a constant of the third approach, 95 % of the sets drawn."""
        return _interval([getattr(one, name) for one in self.drawn])


def read(
    path: Path, columns: Mapping[str, str] | None = None, *, non_embedding: bool = False
) -> tuple[Points, Study | None]:
    """A CSV of points, or a folder of runs. ValueError for what is neither."""
    if path.is_dir():
        study = read_study(path)
        if non_embedding and (unknown := [r.label for r in study.runs if "num_non_embedding" not in r.facts]):
            raise ValueError(f"{path}: {unknown[0]} does not say how many parameters are no embeddings.")
        return study.points(non_embedding=non_embedding), study
    check_there(path)
    return read_points(path, columns), None


def analyse(path: Path, columns: Mapping[str, str] | None = None, options: Options | None = None) -> Findings:
    """Fit everything that the runs of a path allow. ValueError where they allow nothing."""
    options = options or Options()
    points, study = read(path, columns, non_embedding=options.non_embedding)
    if options.drop_worst:
        if options.drop_worst > len(points) - FEWEST_POINTS:
            raise ValueError(f"--drop-worst {options.drop_worst} of {len(points)} points leaves too few for a law.")
        points = points.drop_worst(options.drop_worst)
    if len(np.unique(np.round(np.log(points.C_P), 6))) < 2:
        left_out = "".join(f" {note}" for note in points.notes if "left out" in note)
        raise ValueError(
            f"{path}: all {len(points)} runs have one size and length: a law needs several. Run more.{left_out}"
        )
    kept, held_out = split_held_out(points, options.hold_out) if options.hold_out else (points, None)
    doubts: list[str] = []
    tried = lambda fit: _or_doubt(fit, doubts)
    collinear = collinearity(kept)
    doubts += [collinear] if collinear else []
    parametric, drawn, sensitivities = None, [], []
    if not collinear:
        parametric = tried(lambda: _fit(kept, options))
    if parametric is not None:
        drawn = _drawn(parametric, kept, options)
        doubts += parametric_doubts(parametric, drawn, kept)
        sensitivities = [] if options.predictions_only else sensitivity(kept, parametric, options)
    is_one = bool(collinear) or options.predictions_only
    first = None if is_one else tried(lambda: first_approach(kept))
    parabolas = None if is_one else tried(lambda: fit_parabolas(kept, window=options.window, robust=options.robust))
    second = tried(lambda: second_approach(parabolas)) if parabolas else None
    of_parabolas = _drawn_parabolas(kept, options) if second else []
    doubts += [f"at {one.C:.3g} FLOPs {one.reason}: left out of approach 2" for one in parabolas or () if one.reason]
    power = power_laws(kept, options.E, doubts)
    predictions = (
        predict_held_out(kept, held_out, parametric, drawn, power[0] if power else None) if held_out is not None else []
    )
    return Findings(
        path,
        kept,
        study,
        tuple(_approaches(first, second, parametric, kept, of_parabolas, drawn, options)),
        parametric,
        tuple(drawn),
        tuple(parabolas or ()),
        tuple(map(tuple, of_parabolas)),
        tuple(sensitivities),
        tuple(power),
        tuple(predictions),
        tuple(doubts),
    )


def collinearity(points: Points) -> str:
    """Why no law of two sizes can be fitted; empty where one can."""
    log_N, log_D = np.log(points.N_P), np.log(points.D_P)
    for name, of, other in (("N", log_N, "alpha"), ("D", log_D, "beta")):
        if np.ptp(of) < COLLINEAR:
            return f"every run has one {name}, so {other} and E cannot be told apart: L(N, D) is not fitted"
    slope, level = np.polyfit(log_N, log_D, 1)
    if np.std(log_D - level - slope * log_N) >= COLLINEAR:
        return ""
    ratio = np.exp(np.median(log_D - log_N))
    what = f"D / N is {ratio:.3g} in every run" if abs(slope - 1) < 0.02 else f"D goes as N^{slope:.2f} in every run"
    return (
        f"{what}: N and D are one variable, and no fit can tell alpha from beta or the best N for a compute. Run some "
        "sizes with more and fewer tokens"
    )


def parametric_doubts(fit: ParametricFit, drawn: Sequence[ParametricFit], points: Points) -> list[str]:
    """What of the third approach is not to be believed."""
    doubts = [
        f"approach 3: {name} ended at the edge of what is possible; it is not identified" for name in fit.at_bound
    ]
    if not fit.converged:
        doubts.append("approach 3 did not converge")
    if fit.num_starts > 1 and fit.num_hits < 2:
        doubts.append("approach 3: one start alone found the optimum; there may be a better one")
    if len(points) < BOOTSTRAP_SMALL:
        doubts.append(f"approach 3 has {len(points)} points for five constants: its intervals are too narrow")
    if drawn:
        lowest = float(points.L_P.min())
        low, high = np.quantile([one.E for one in drawn], INTERVAL)
        if low < 0.01 * lowest or high - low > 0.3 * lowest:
            doubts.append(f"E is not identified: sets of the runs allow {low:.3g} to {high:.3g}")
        at_bound = np.mean([bool(one.at_bound) for one in drawn])
        if at_bound > 0.05:
            doubts.append(f"{at_bound:.0%} of the drawn sets end with a constant at the edge of what is possible")
    return doubts


def sensitivity(points: Points, fit: ParametricFit, options: Options) -> list[Sensitivity]:
    """More points dropped, other deltas, E assumed: each begun at the fit and a few starts of its own."""
    found = []
    most = max(int(MOST_DROPPED_SHARE * len(points)), 1)
    for num in DROPPED:
        if 0 < num <= most and len(points) - num >= FEWEST_POINTS:
            found.append(
                Sensitivity(
                    f"{num} of the highest loss dropped",
                    _again(points.drop_worst(num), fit, options),
                    len(points) - num,
                )
            )
    for delta in DELTAS if fit.loss == "huber" else ():
        if not math.isclose(delta, fit.delta):
            other = dataclasses.replace(options, delta=delta)
            found.append(Sensitivity(f"delta {delta:g}", _again(points, fit, other), len(points)))
    for share in ASSUMED_SHARES:
        E = share * float(points.L_P.min())
        other = dataclasses.replace(options, E=E)
        found.append(Sensitivity(f"E assumed {E:.3g}", _again(points, fit, other), len(points)))
    return found


def power_laws(points: Points, assumed: float | None, doubts: list[str]) -> list[PowerLaw]:
    """The frontier of the endpoints, or all of them where they are one line of runs: E free, then assumed."""
    kept = pareto(points.C_P, points.L_P)
    if len(kept) < 2:
        doubts.append("no run of more compute is better than the cheapest: there is no law over compute")
        return []
    x, loss = points.C_P[kept], points.L_P[kept]
    lowest = float(loss.min())
    wanted = [assumed] if assumed is not None else [None, *(share * lowest for share in ASSUMED_SHARES)]
    found = []
    for E in wanted:
        law = _or_doubt(lambda E=E: fit_power(x, loss, E=E), doubts)
        if law is not None:
            found.append(law)
    if found and found[0].doubt:
        doubts.append(f"loss over compute: {found[0].doubt}")
    return found


def _fit(points: Points, options: Options, starts: Sequence[ParametricFit] | None = None) -> ParametricFit:
    return fit_parametric(
        points.N_P, points.D_P, points.L_P, delta=options.delta, loss=options.loss, E=options.E, starts=starts
    )


def _again(points: Points, fit: ParametricFit, options: Options) -> ParametricFit:
    """Begun at a fit, and at others that are far from it."""
    if options.E is not None:
        return _fit(points, options)
    others = [
        dataclasses.replace(fit, alpha=fit.alpha * factor, beta=fit.beta / factor, E=fit.E * share)
        for factor, share in ((0.7, 0.9), (1.4, 0.9), (1.0, 0.6))
    ]
    return _fit(points, options, [fit, *others])


def _drawn(fit: ParametricFit, points: Points, options: Options) -> list[ParametricFit]:
    return bootstrap(fit, points.N_P, points.D_P, points.L_P, points.run_P, num=options.num_bootstrap, E=options.E)


def _drawn_parabolas(points: Points, options: Options) -> list[list[Parabola]]:
    return bootstrap_second(points, window=options.window, robust=options.robust, num=options.num_bootstrap)


def _approaches(
    first: Allocation | None,
    second: Allocation | None,
    third: ParametricFit | None,
    points: Points,
    drawn_parabolas: Sequence[Sequence[Parabola]],
    drawn: Sequence[ParametricFit],
    options: Options,
) -> list[Approach]:
    rows = []
    if first is not None:
        values = [one.a for one in bootstrap_first(points, num=options.num_bootstrap)]
        remark = f"{len(first.C_K)} runs that no cheaper one reaches"
        rows.append(Approach("1, envelope", first.a, first.b, _interval(values), first.optimal, remark))
    if second is not None:
        values = [_second_exponent(one) for one in drawn_parabolas]
        remark = f"{len(second.C_K)} budgets with a lowest point inside"
        fine = [value for value in values if value is not None]
        rows.append(Approach("2, isoFLOP", second.a, second.b, _interval(fine), second.optimal, remark))
    if third is not None:
        remark = f"{third.num_points} points, {third.num_hits} of {third.num_starts} starts at the optimum"
        values = [one.a for one in drawn]
        rows.append(Approach("3, L(N, D)", third.a, third.b, _interval(values), third.optimal, remark))
    return rows


def _second_exponent(parabolas: Sequence[Parabola]) -> float | None:
    return second_approach(parabolas).a if sum(not one.reason for one in parabolas) >= 2 else None


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    low, high = np.quantile(values, INTERVAL) if len(values) >= 20 else (math.nan, math.nan)
    return (float(low), float(high)) if math.isfinite(low) else None


def _or_doubt(fit: Callable[[], T], doubts: list[str]) -> T | None:
    """A fit, or nothing and why."""
    try:
        return fit()
    except ValueError as error:
        doubts.append(str(error).rstrip("."))
        return None
