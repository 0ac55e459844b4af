"""How large should a model be for its compute? Chinchilla's first approach (the runs that no cheaper run reaches) and
its second (the lowest point of a parabola at each budget), and the power laws of the best N and D over compute.

Axes: P points, K budgets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreloom.lab.fit.frontier import pareto
from foreloom.lab.fit.points import Points

FEWEST_SIZES = 4
"""Of different N at a budget: three are a parabola, whatever they are."""
BUDGET_WIDTH = 1.25
"""How far the compute of one budget may spread, highest over lowest."""
TUKEY = 4.685
"""Scales at which the bisquare gives a point no weight (95 % efficient for normal errors)."""
MOST_TRIPLES = 300
EDGE_SHARE = 0.02
"""Of the range of log N: a vertex this near to either end, or outside, is none."""


@dataclass(frozen=True)
class Parabola:
    """The loss over log N at one budget: level + curvature * (log N - vertex)^2."""

    C: float
    """FLOPs, the geometric mean of the points'."""
    N_P: np.ndarray
    D_P: np.ndarray
    L_P: np.ndarray
    weight_P: np.ndarray
    """0 for a point that was taken as an outlier."""
    curvature: float
    vertex: float
    """log N."""
    level: float
    reason: str = ""
    """Why the vertex is no optimum; empty where it is one."""

    @property
    def N(self) -> float:
        """inf or 0 where the vertex of what is nearly a line lies beyond all numbers."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.vertex))

    @property
    def D(self) -> float:
        """Tokens that the budget pays for at N, by the points' own price of a parameter and a token."""
        with np.errstate(divide="ignore"):
            return float(np.exp(np.mean(np.log(self.N_P * self.D_P))) / self.N)

    def predict(self, N: np.ndarray) -> np.ndarray:
        return self.level + self.curvature * (np.log(N) - self.vertex) ** 2


@dataclass(frozen=True)
class Allocation:
    """Power laws of the best sizes: N = k_N C^a, D = k_D C^b."""

    a: float
    k_N: float
    b: float
    k_D: float
    C_K: np.ndarray
    N_K: np.ndarray
    D_K: np.ndarray
    L_K: np.ndarray

    def optimal(self, C: float) -> tuple[float, float]:
        return self.k_N * C**self.a, self.k_D * C**self.b


def budgets(points: Points) -> list[np.ndarray]:
    """Indices of the points of each budget that has `FEWEST_SIZES` different N: again and again the densest stretch of
    compute, `BUDGET_WIDTH` wide. The lowest budget first."""
    left, log_C, groups = np.arange(len(points)), np.log(points.C_P), []
    while len(left):
        ordered = left[np.argsort(log_C[left], kind="stable")]
        ends = np.searchsorted(log_C[ordered], log_C[ordered] + math.log(BUDGET_WIDTH) * (1 + 1e-9), side="right")
        start = int(np.argmax(ends - np.arange(len(ordered))))
        group = ordered[start : ends[start]]
        if len(group) < FEWEST_SIZES:
            break
        if len(np.unique(points.N_P[group])) >= FEWEST_SIZES:
            groups.append(np.sort(group))
        left = np.setdiff1d(left, group)
    return sorted(groups, key=lambda group: float(log_C[group].mean()))


def fit_parabola(points: Points, *, window: float = math.inf, robust: bool = True) -> Parabola:
    """The parabola of one budget's points. `window` leaves out what is more than so many times smaller or larger than
    the vertex of all points; `robust` gives outliers no weight (Tukey's bisquare from least absolute deviations)."""
    if math.isfinite(window):
        whole = fit_parabola(points, robust=robust)
        near_P = np.abs(np.log(points.N_P) - whole.vertex) <= math.log(window)
        if whole.reason or len(np.unique(points.N_P[near_P])) < FEWEST_SIZES:
            return whole
        points = points.take(near_P)
    log_N = np.log(points.N_P)
    centre = float(log_N.mean())
    weight_P = _bisquare(log_N - centre, points.L_P) if robust and len(points) > FEWEST_SIZES else np.ones(len(points))
    kept = weight_P > 0
    curvature, slope, level = np.polyfit(log_N - centre, points.L_P, 2, w=np.sqrt(weight_P))
    offset = -slope / (2 * curvature) if curvature else math.inf
    vertex = centre + offset
    low, high = float(log_N[kept].min()), float(log_N[kept].max())
    margin = EDGE_SHARE * (high - low)
    reason = ""
    if curvature <= 0:
        reason = "the loss does not bend upwards"
    elif not low + margin < vertex < high - margin:
        side = "below the smallest" if vertex <= low + margin else "above the largest"
        reason = f"its lowest point is at or {side} N; run models there"
    return Parabola(
        math.exp(float(np.log(points.C_P).mean())),
        points.N_P,
        points.D_P,
        points.L_P,
        weight_P,
        float(curvature),
        float(vertex),
        float(level - curvature * offset**2) if math.isfinite(offset) else math.nan,
        reason,
    )


def fit_parabolas(points: Points, *, window: float = math.inf, robust: bool = True) -> list[Parabola]:
    """One a budget. ValueError where no two budgets have enough different sizes."""
    groups = budgets(points)
    if len(groups) < 2:
        raise ValueError(
            f"{len(groups)} budgets with {FEWEST_SIZES} or more sizes of equal compute: approach 2 needs two, "
            "each with models that are too small and too large for it."
        )
    return [fit_parabola(points.take(group), window=window, robust=robust) for group in groups]


def second_approach(parabolas: Sequence[Parabola]) -> Allocation:
    """Through the vertices that are optima. ValueError where fewer than two are."""
    fine = [one for one in parabolas if not one.reason]
    if len(fine) < 2:
        told = "; ".join(f"at {one.C:.3g} FLOPs {one.reason}" for one in parabolas if one.reason)
        raise ValueError(f"approach 2 has {len(fine)} budgets with a lowest point inside: {told}.")
    C, N, D, L = (np.array([getattr(one, name) for one in fine]) for name in ("C", "N", "D", "level"))
    return _power_laws(C, N, D, L)


def first_approach(points: Points) -> Allocation:
    """Through the runs on the frontier of loss over compute. ValueError where fewer than three lie on it, or all of
    one D / N."""
    kept = pareto(points.C_P, points.L_P)
    C, N, D, L = (values[kept] for values in (points.C_P, points.N_P, points.D_P, points.L_P))
    if len(kept) < 3:
        raise ValueError(f"{len(kept)} runs on the frontier: approach 1 needs three or more.")
    return _power_laws(C, N, D, L)


def bootstrap_second(points: Points, *, window: float, robust: bool, num: int, seed: int = 0) -> list[list[Parabola]]:
    """The parabolas of `num` sets of as many runs at each budget, drawn with replacement."""
    generator, groups = np.random.default_rng(seed), budgets(points)
    found = []
    for _ in range(num):
        fitted = []
        for group in groups:
            drawn = points.take(generator.choice(group, size=len(group)))
            if len(np.unique(drawn.N_P)) >= FEWEST_SIZES:
                fitted.append(fit_parabola(drawn, window=window, robust=robust))
        found.append(fitted)
    return found


def bootstrap_first(points: Points, *, num: int, seed: int = 0) -> list[Allocation]:
    """The first approach of sets of runs drawn with replacement; fewer where a set has no frontier."""
    generator, found = np.random.default_rng(seed), []
    for _ in range(num):
        drawn = points.take(np.unique(generator.integers(len(points), size=len(points))))
        if len(pareto(drawn.C_P, drawn.L_P)) >= 3:
            found.append(first_approach(drawn))
    return found


def _power_laws(C_K: np.ndarray, N_K: np.ndarray, D_K: np.ndarray, L_K: np.ndarray) -> Allocation:
    a, log_N = np.polyfit(np.log(C_K), np.log(N_K), 1)
    b, log_D = np.polyfit(np.log(C_K), np.log(D_K), 1)
    return Allocation(float(a), math.exp(log_N), float(b), math.exp(log_D), C_K, N_K, D_K, L_K)


def _bisquare(x_P: np.ndarray, y_P: np.ndarray) -> np.ndarray:
    """Weights of the points: 0 for those far from the parabola of most."""
    residual = y_P - np.polyval(_least_absolute(x_P, y_P), x_P)
    weight = np.ones(len(x_P))
    for _ in range(20):
        scale = 1.4826 * float(np.median(np.abs(residual))) or 1e-12
        before, weight = weight, np.maximum(1 - (residual / (TUKEY * scale)) ** 2, 0) ** 2
        if len(np.unique(x_P[weight > 0])) < FEWEST_SIZES:
            return before
        if np.allclose(weight, before, atol=1e-6):
            break
        residual = y_P - np.polyval(np.polyfit(x_P, y_P, 2, w=np.sqrt(weight)), x_P)
    return weight


def _least_absolute(x_P: np.ndarray, y_P: np.ndarray) -> np.ndarray:
    """Coefficients of the parabola with the smallest sum of absolute residuals: it goes through three of the points."""
    triples = np.array(list(itertools.combinations(range(len(x_P)), 3)))
    if len(triples) > MOST_TRIPLES:
        triples = triples[np.random.default_rng(0).choice(len(triples), MOST_TRIPLES, replace=False)]
    x, y = x_P[triples], y_P[triples]
    apart = (np.diff(np.sort(x, axis=1), axis=1) > 1e-9).all(axis=1)
    x, y = x[apart], y[apart]
    coefficients = np.linalg.solve(np.stack([x**2, x, np.ones_like(x)], axis=-1), y[..., None])[..., 0]
    powers = np.stack([x_P**2, x_P, np.ones_like(x_P)])
    return coefficients[int(np.abs(y_P - coefficients @ powers).sum(axis=1).argmin())]
