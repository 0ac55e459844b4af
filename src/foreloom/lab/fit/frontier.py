"""How does the best loss fall with compute? Strict Pareto frontiers, power laws L = E + A C^exponent with E free or
assumed, and what the loss of one architecture costs another.

Every row of a run's curve may lie on the frontier, also where its learning rate had not come down yet, as in Kaplan et
al. (2020); endpoints are the runs whose schedule ended. Rows of one run are not independent: intervals draw runs.

Axes: T points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foreloom.lab.fit.runs import Run

CONFIDENCE = 0.95
INTERVAL = (0.025, 0.975)
"""The same as quantiles of what was drawn."""
ASSUMED_SHARES = (0.0, 0.25, 0.5, 0.65, 0.8, 0.9)
"""Of the lowest loss: where E is assumed to see what the exponent makes of it."""
WIDE = 0.2
"""Of the lowest loss: an interval of E wider than this says that E is not known."""

SAME_COMPUTE = 1e-9
"""Relative difference that rounding may make."""

Compute = Literal["6nd", "counted"]
Space = Literal["log", "linear"]


@dataclass(frozen=True)
class PowerLaw:
    """L = E + A x^exponent; x is compute in FLOPs, or a size."""

    A: float
    exponent: float
    E: float
    num_points: int
    num_runs: int
    rmse: float
    """Of log(L - E)."""
    E_interval: tuple[float, float] | None = None
    """Where E was free: what the points allow at 95 %, by the likelihood of log residuals."""

    @property
    def doubt(self) -> str:
        """Why the E that was found is no finding; empty where it was assumed or is one."""
        if self.E_interval is None:
            return ""
        low, high = self.E_interval
        if low <= 0 or not math.isfinite(high) or high - low > WIDE * max(self.E, high):
            return f"E is not identified: the points allow {low:.3g} to {high:.3g}, and the exponent hangs on it"
        return ""

    def predict(self, x: np.ndarray | float) -> np.ndarray:
        return self.E + self.A * np.asarray(x, float) ** self.exponent

    def cost(self, loss: float) -> float:
        """The x at which the law reaches a loss; infinite at E and below."""
        return ((loss - self.E) / self.A) ** (1 / self.exponent) if loss > self.E else math.inf


def pareto(x_T: np.ndarray, loss_T: np.ndarray) -> np.ndarray:
    """Indices of the strict frontier, by x: points whose loss no point of as little or less x reaches. Of equal x the
    lowest loss stands for all; x that rounding alone sets apart, as it does 6ND of one budget, are equal."""
    by_x = np.argsort(x_T, kind="stable")
    x_of_T = np.empty(len(x_T), np.int64)
    x_of_T[by_x] = np.cumsum(np.diff(x_T[by_x], prepend=x_T[by_x][:1]) > SAME_COMPUTE * np.abs(x_T[by_x]))
    order = np.lexsort((loss_T, x_of_T))
    best_before = np.r_[np.inf, np.minimum.accumulate(loss_T[order])[:-1]]
    return order[loss_T[order] < best_before]


def frontier(
    runs: Sequence[Run], *, compute: Compute = "6nd", window: tuple[float, float] = (0, math.inf)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute, loss and number of the run of each point of the frontier of all rows within a window of FLOPs."""
    x = np.concatenate([run.flops_T if compute == "6nd" else run.counted_T for run in runs])
    loss = np.concatenate([run.loss_T for run in runs])
    number = np.repeat(np.arange(len(runs)), [len(run.loss_T) for run in runs])
    inside = np.isfinite(x) & np.isfinite(loss) & (x >= window[0]) & (x <= window[1])
    x, loss, number = x[inside], loss[inside], number[inside]
    kept = pareto(x, loss)
    return x[kept], loss[kept], number[kept]


def fit_power(
    x_T: np.ndarray, loss_T: np.ndarray, *, E: float | None = 0.0, space: Space = "log", num_runs: int | None = None
) -> PowerLaw:
    """Least squares of log(L - E), or of L in `linear` space. `E` in the unit of the losses, or None to find it, too.

    `num_runs` is how many of the points are independent (default: all); it decides how wide the interval of E is.
    ValueError for points of one x, too few points, and an E that is not below every loss.
    """
    num_runs = len(x_T) if num_runs is None else num_runs
    if len(np.unique(x_T)) < (2 if E is not None else 4):
        raise ValueError(
            f"{len(np.unique(x_T))} different sizes: a power law needs two, one with a free E four. Run more of them."
        )
    if E is None:
        return _with_free_E(x_T, loss_T, num_runs)
    if loss_T.min() <= E:
        raise ValueError(f"E = {E:g} is not below the lowest loss, {loss_T.min():.4g}: nothing is left to fit.")
    exponent, log_A = np.polyfit(np.log(x_T), np.log(loss_T - E), 1)
    if space == "linear":
        from scipy.optimize import curve_fit

        centre = float(np.log(x_T).mean())
        law = lambda log_x, level, slope: np.exp(level + slope * (log_x - centre))
        start = (log_A + exponent * centre, exponent)
        level, exponent = curve_fit(law, np.log(x_T), loss_T - E, p0=start)[0]
        log_A = level - exponent * centre
    residual = np.log(loss_T - E) - log_A - exponent * np.log(x_T)
    rmse = math.sqrt(float(np.mean(residual**2)))
    return PowerLaw(math.exp(log_A), float(exponent), E, len(x_T), num_runs, rmse)


def _with_free_E(x_T: np.ndarray, loss_T: np.ndarray, num_runs: int) -> PowerLaw:
    """The E with the highest likelihood of log L, and those that are not much less likely."""
    from scipy import stats

    lowest = float(loss_T.min())
    grid_S = np.r_[0.0, np.linspace(0.01, 0.99, 197), 1 - np.logspace(-2.2, -5, 15)]
    of_grid_S = _lines(x_T, loss_T, grid_S * lowest)[0]
    share_S, best = grid_S, int(of_grid_S.argmin())
    for _ in range(6):  # a finer grid between the neighbours of the best
        share_S = np.linspace(share_S[max(best - 1, 0)], share_S[min(best + 1, len(share_S) - 1)], 41)
        sums_S, slope_S, level_S = _lines(x_T, loss_T, share_S * lowest)
        best = int(sums_S.argmin())
    E, slope, level = float(share_S[best]) * lowest, float(slope_S[best]), float(level_S[best])
    freedom = max(num_runs - 3, 1)
    limit = sums_S[best] * (1 + stats.f.ppf(CONFIDENCE, 1, freedom) / freedom) + 1e-20
    allowed = np.r_[grid_S[of_grid_S <= limit], share_S[best]]
    below, above = grid_S[grid_S < allowed.min()], grid_S[grid_S > allowed.max()]
    is_allowed = lambda share: _lines(x_T, loss_T, np.array([share * lowest]))[0][0] <= limit
    low = _edge(allowed.min(), below[-1], is_allowed) * lowest if len(below) else 0.0
    high = _edge(allowed.max(), above[0], is_allowed) * lowest if len(above) else math.inf
    rmse = math.sqrt(float(np.mean((np.log(loss_T - E) - level - slope * np.log(x_T)) ** 2)))
    return PowerLaw(math.exp(level), slope, E, len(x_T), num_runs, rmse, (float(low), float(high)))


def _edge(inside: float, outside: float, is_allowed: Callable[[float], bool]) -> float:
    """Where what is allowed ends, by halves."""
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_allowed(middle) else (inside, middle)
    return inside


def _lines(x_T: np.ndarray, loss_T: np.ndarray, E_S: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each E the line of log(L - E) over log x that is best for log L: sum of squares there, slope and level."""
    log_x_T, left_ST = np.log(x_T), loss_T - E_S[:, None]
    weight_ST, y_ST = (left_ST / loss_T) ** 2, np.log(left_ST)
    weight_ST = weight_ST / weight_ST.sum(axis=1, keepdims=True)
    x_S1, y_S1 = ((weight_ST * one).sum(axis=1, keepdims=True) for one in (log_x_T, y_ST))
    slope_S1 = (weight_ST * (log_x_T - x_S1) * (y_ST - y_S1)).sum(axis=1, keepdims=True) / (
        weight_ST * (log_x_T - x_S1) ** 2
    ).sum(axis=1, keepdims=True)
    level_S1 = y_S1 - slope_S1 * x_S1
    misfit_ST = np.log(loss_T) - np.log(E_S[:, None] + np.exp(level_S1 + slope_S1 * log_x_T))
    return (misfit_ST**2).sum(axis=1), slope_S1[:, 0], level_S1[:, 0]


def bootstrap_exponents(
    runs: Sequence[Run],
    assumed: Sequence[float],
    *,
    compute: Compute = "6nd",
    window: tuple[float, float] = (0, math.inf),
    num: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Exponents of the frontiers of `num` sets of as many runs drawn with replacement, (num, E assumed); NaN where a
    set has no line."""
    generator, found = np.random.default_rng(seed), np.full((num, len(assumed)), math.nan)
    for row in found:
        drawn = sorted(set(generator.integers(len(runs), size=len(runs)).tolist()))
        x, loss, _ = frontier([runs[i] for i in drawn], compute=compute, window=window)
        for place, E in enumerate(assumed):
            if len(x) >= 2 and loss.min() > E:
                row[place] = np.polyfit(np.log(x), np.log(loss - E), 1)[0]
    return found


def compute_equivalent_gain(base: PowerLaw, other: PowerLaw, C: float) -> float:
    """How many times the compute `base` needs for the loss that `other` reaches with C FLOPs."""
    return base.cost(float(other.predict(C))) / C


def loss_multiplier(base: float, variant: float, *, E: float, gamma: float) -> float:
    """The same of two losses at equal compute, where L - E falls as C^-gamma. NaN at E and below."""
    if min(base, variant) <= E:
        return math.nan
    return ((variant - E) / (base - E)) ** (-1 / gamma)
