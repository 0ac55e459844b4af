"""What would the largest runs lose, told from the smaller ones alone? Predictions with intervals, and the error made.

Axes: P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreloom.lab.fit.allocation import BUDGET_WIDTH
from foreloom.lab.fit.frontier import CONFIDENCE, INTERVAL, PowerLaw, pareto
from foreloom.lab.fit.parametric import ParametricFit
from foreloom.lab.fit.points import Points


@dataclass(frozen=True)
class Prediction:
    """Of one law for one run that it has not seen. Losses in the unit of the runs: nats for text."""

    law: str
    label: str
    C: float
    predicted: float
    interval: tuple[float, float] | None
    """In which a run lies with 95 %, its own scatter included, if the law holds; None where nobody knows."""
    measured: float
    times_beyond: float
    """How many times the compute of the largest run fitted."""

    @property
    def error(self) -> float:
        """Predicted less measured."""
        return self.predicted - self.measured

    @property
    def is_inside(self) -> bool | None:
        return None if self.interval is None else self.interval[0] <= self.measured <= self.interval[1]


def split_held_out(points: Points, what: str) -> tuple[Points, Points]:
    """Points without, and with nothing but, those held out: the `largest` budget of compute, or the labels named.

    ValueError for a label that is not there, and where too little is left on either side.
    """
    if what == "largest":
        out_P = points.C_P / points.C_P.max() > 1 / BUDGET_WIDTH
        if len(np.unique(np.round(np.log(points.C_P[~out_P]), 2))) < 2:
            raise ValueError(
                f"--hold-out largest: without the largest of {len(points)} runs fewer than two budgets are left, and "
                "nothing can be told from them. Run a ladder of smaller ones."
            )
    else:
        wanted = [part.strip() for part in what.split(",") if part.strip()]
        if unknown := [name for name in wanted if name not in points.labels]:
            raise ValueError(f"--hold-out: no run {unknown[0]!r}; there are {', '.join(points.labels[:12])} ...")
        out_P = np.isin(points.labels, wanted)
        if out_P.all():
            raise ValueError("--hold-out names every run: nothing is left to fit.")
    told = f"{int(out_P.sum())} held out: {', '.join(np.array(points.labels)[out_P][:6])}."
    return points.take(~out_P, told), points.take(out_P)


def predict_held_out(
    kept: Points,
    held_out: Points,
    parametric: ParametricFit | None,
    drawn: Sequence[ParametricFit],
    power: PowerLaw | None,
) -> list[Prediction]:
    """By L(N, D) and by the law over compute, where there are any."""
    found = []
    for i, label in enumerate(held_out.labels):
        N, D, C, L = (float(values[i]) for values in (held_out.N_P, held_out.D_P, held_out.C_P, held_out.L_P))
        beyond = C / float(kept.C_P.max())
        if parametric is not None:
            interval = parametric_interval(parametric, drawn, kept, N, D)
            found.append(Prediction("L(N, D)", label, C, float(parametric.predict(N, D)), interval, L, beyond))
        if power is not None:
            frontier = pareto(kept.C_P, kept.L_P)
            interval = power_interval(power, kept.C_P[frontier], kept.L_P[frontier], C)
            found.append(Prediction("L(C)", label, C, float(power.predict(C)), interval, L, beyond))
    return found


def parametric_interval(
    fit: ParametricFit, drawn: Sequence[ParametricFit], points: Points, N: float, D: float, seed: int = 0
) -> tuple[float, float] | None:
    """Of sets of runs drawn with replacement, each with the scatter of a run: residuals, widened for the five constants
    that were fitted to them."""
    if not drawn or len(points) <= 6:
        return None
    residual = fit.residuals(points.N_P, points.D_P, points.L_P) * math.sqrt(len(points) / (len(points) - 5))
    scatter = np.random.default_rng(seed).choice(residual, size=(20, len(drawn)))
    losses = np.exp(np.log([float(one.predict(N, D)) for one in drawn]) + scatter)
    low, high = np.quantile(losses, INTERVAL)
    return float(low), float(high)


def power_interval(law: PowerLaw, x_T: np.ndarray, loss_T: np.ndarray, x: float) -> tuple[float, float] | None:
    """Student's interval of a new point, the law taken as straight around its constants: wide where runs are few."""
    from scipy import stats

    num_constants = 3 if law.E_interval is not None and law.E > 0 else 2
    freedom = len(x_T) - num_constants
    if freedom < 1:
        return None

    def gradient(at: np.ndarray) -> np.ndarray:
        """Of log L by log A, exponent and E."""
        loss = law.predict(at)
        power = (loss - law.E) / loss
        return np.stack([power, power * np.log(at / x_T[0]), 1 / loss], axis=-1)[..., :num_constants]

    design, row = gradient(x_T), gradient(np.array([x]))[0]
    variance = float(np.sum((np.log(loss_T) - np.log(law.predict(x_T))) ** 2)) / freedom
    spread = variance * (1 + float(row @ np.linalg.pinv(design.T @ design) @ row))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * math.sqrt(spread)
    predicted = float(law.predict(x))
    return predicted * math.exp(-half), predicted * math.exp(half)
