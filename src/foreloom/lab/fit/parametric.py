"""How does the loss fall with parameters and tokens? Chinchilla's third approach: L = E + A / N^alpha + B / D^beta.

The sum (never the mean, at which a relative test of convergence stops at once) of Huber losses of log residuals is
minimised with its gradient from starts that solve for A and B (Hoffmann et al., 2022, appendix D.3; what goes wrong
with it: Besiroglu et al., 2024). log N and log D are centred meanwhile, so that a step in an exponent does not move
the whole surface.

Axes: P points.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

DELTA = 1e-3
"""Of Huber's loss, in nats of log loss."""
FLOPS_PER_PARAMETER_TOKEN = 6
"""C = 6 N D: two FLOPs forward and four backward for a parameter and a token."""
NAMES = ("E", "A", "B", "alpha", "beta")
EXPONENTS = (0.2, 0.4, 0.7)
"""At which the starts lie, for alpha and beta each."""
SHARES = (0.05, 0.3, 0.55, 0.75, 0.88, 0.97)
"""Of the lowest loss, at which the starts have E: with the exponents 54 starts."""
LARGEST_EXPONENT = 3.0
NO_E = 1e-3
"""As a share of the lowest loss: an E below is none."""
LOWEST_E = 1e-6
"""As a share of the lowest loss: E = 0 for what is computed in logarithms."""
FEWEST_POINTS = 8
HIT = 1e-4
"""How near to the best objective a start counts as having found it."""

Loss = Literal["huber", "lad"]


@dataclass(frozen=True)
class ParametricFit:
    """The law, with what is to be known of how it was found. N parameters, D tokens, L nats."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float
    """The sum over points of Huber's loss of log residuals, of absolute ones for `lad`."""
    loss: Loss
    delta: float
    num_points: int
    num_starts: int
    num_hits: int
    """Starts that ended within 0.01 % of the best objective."""
    converged: bool
    at_bound: tuple[str, ...]
    """Parameters that ended at the edge of what was allowed: the data do not hold them."""
    seconds: float

    @property
    def a(self) -> float:
        """The exponent of the best N over compute."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> float:
        """The exponent of the best D over compute."""
        return self.alpha / (self.alpha + self.beta)

    def predict(self, N: np.ndarray | float, D: np.ndarray | float) -> np.ndarray:
        """The loss at N parameters and D tokens."""
        return self.E + self.A * np.asarray(N, float) ** -self.alpha + self.B * np.asarray(D, float) ** -self.beta

    def residuals(self, N_P: np.ndarray, D_P: np.ndarray, L_P: np.ndarray) -> np.ndarray:
        """log L - log of what is predicted; positive where a run is worse than the law."""
        return np.log(L_P) - np.log(self.predict(N_P, D_P))

    def optimal(self, C: float) -> tuple[float, float]:
        """The N and D that reach the lowest loss with C = 6 N D FLOPs; inf and 0 where exponents near 0 say so."""
        pairs = C / FLOPS_PER_PARAMETER_TOKEN
        with np.errstate(over="ignore", divide="ignore"):
            balance = np.float64(self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
            N = balance * pairs**self.a
            return float(N), float(pairs / N)


class Surface:
    """Points as the optimiser sees them. Parameters: log A and log B at the centre, log E, alpha, beta."""

    def __init__(self, N_P: np.ndarray, D_P: np.ndarray, L_P: np.ndarray) -> None:
        log_N, log_D = np.log(N_P), np.log(D_P)
        self.centre_N, self.centre_D = float(log_N.mean()), float(log_D.mean())
        self.u_P, self.v_P = log_N - self.centre_N, log_D - self.centre_D
        self.L_P, self.log_L_P = np.asarray(L_P, float), np.log(L_P)
        self.lowest = float(self.L_P.min())

    def bounds(self, E: float | None) -> list[tuple[float, float]]:
        edge = 60.0
        lowest = math.log(self.lowest * LOWEST_E)
        of_E = (lowest, math.log(self.L_P.max())) if E is None else (max(math.log(E), lowest) if E > 0 else lowest,) * 2
        return [(-edge, edge), (-edge, edge), of_E, (1e-4, LARGEST_EXPONENT), (1e-4, LARGEST_EXPONENT)]

    def starts(self, E: float | None = None) -> list[np.ndarray]:
        """For exponents and E on a grid, the A and B that fit best in least squares."""
        from scipy.optimize import nnls

        shares = SHARES if E is None else (max(E / self.lowest, LOWEST_E),)
        found = []
        for alpha, beta, share in itertools.product(EXPONENTS, EXPONENTS, shares):
            design = np.stack([np.exp(-alpha * self.u_P), np.exp(-beta * self.v_P)], axis=1)
            sizes, _ = nnls(design, self.L_P - share * self.lowest)
            log_A, log_B = np.log(np.maximum(sizes, 1e-3 * self.lowest))
            found.append(np.array([log_A, log_B, math.log(share * self.lowest), alpha, beta]))
        return found

    def minimise(
        self, start: np.ndarray, delta: float, E: float | None = None, weight_P: np.ndarray | None = None
    ) -> tuple[float, np.ndarray, bool]:
        """From one start: the objective over delta, the parameters, and whether it converged. `weight_P` counts a
        point several times, or not at all."""
        from scipy.optimize import minimize

        u_P, v_P, log_L_P = self.u_P, self.v_P, self.log_L_P
        if weight_P is not None:
            kept = weight_P > 0
            u_P, v_P, log_L_P, weight_P = u_P[kept], v_P[kept], log_L_P[kept], weight_P[kept]

        def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
            term_A, term_B = np.exp(p[0] - p[3] * u_P), np.exp(p[1] - p[4] * v_P)
            floor = math.exp(p[2])
            total = term_A + term_B + floor
            r_P = log_L_P - np.log(total)
            # Huber's loss over delta: sums near 1, for which the tolerances below are meant.
            slope_P = np.clip(r_P / delta, -1.0, 1.0)
            value_P = slope_P * r_P - 0.5 * delta * slope_P * slope_P
            if weight_P is not None:
                value_P, slope_P = value_P * weight_P, slope_P * weight_P
            part = slope_P / total
            of_A, of_B = part * term_A, part * term_B
            gradient = np.array([-of_A.sum(), -of_B.sum(), -floor * part.sum(), (of_A * u_P).sum(), (of_B * v_P).sum()])
            return float(value_P.sum()), gradient

        with np.errstate(over="ignore", invalid="ignore"):
            found = minimize(
                objective,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=self.bounds(E),
                options={"maxiter": 1000, "maxfun": 2000, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-12},
            )
        # A line search that finds no lower value any more is the end that double precision allows.
        return float(found.fun), found.x, found.status == 0 or "ABNORMAL" in str(found.message)

    def predict(self, p: np.ndarray) -> np.ndarray:
        """Log losses of all points."""
        return np.log(np.exp(p[0] - p[3] * self.u_P) + np.exp(p[1] - p[4] * self.v_P) + math.exp(p[2]))

    def constants(self, p: np.ndarray) -> dict[str, float]:
        """E, A, B, alpha, beta of parameters."""
        log_A, log_B, log_E, alpha, beta = map(float, p)
        A, B = (
            math.exp(min(size + e * c, 700))
            for size, e, c in ((log_A, alpha, self.centre_N), (log_B, beta, self.centre_D))
        )
        floor = math.exp(log_E)
        return {"E": floor if floor > 2 * LOWEST_E * self.lowest else 0.0, "A": A, "B": B, "alpha": alpha, "beta": beta}

    def parameters(self, fit: ParametricFit) -> np.ndarray:
        """The other way round."""
        log_E = math.log(max(fit.E, LOWEST_E * self.lowest))
        log_A, log_B = math.log(fit.A) - fit.alpha * self.centre_N, math.log(fit.B) - fit.beta * self.centre_D
        return np.array([log_A, log_B, log_E, fit.alpha, fit.beta])


def fit_parametric(
    N_P: np.ndarray,
    D_P: np.ndarray,
    L_P: np.ndarray,
    *,
    delta: float = DELTA,
    loss: Loss = "huber",
    E: float | None = None,
    starts: Sequence[ParametricFit] | None = None,
) -> ParametricFit:
    """The law of `FEWEST_POINTS` or more, from 54 starts or from those given; `E` in nats fixes the loss that remains.

    `loss="lad"` minimises absolute log residuals, which is Huber's loss for delta -> 0. ValueError for too few points
    or values that are not positive.
    """
    import scipy.optimize  # noqa: F401 (before the clock starts)

    _check(N_P, D_P, L_P)
    began = time.perf_counter()
    surface = Surface(N_P, D_P, L_P)
    begin_at = surface.starts(E) if starts is None else [surface.parameters(one) for one in starts]
    found = [surface.minimise(start, delta, E) for start in begin_at]
    best, p, converged = min(found, key=lambda one: one[0])
    num_hits = sum(value <= best * (1 + HIT) + 1e-20 for value, _, _ in found)
    objective = best * delta
    if loss == "lad":
        p, objective = _least_absolute(surface, p, E)
    return ParametricFit(
        **surface.constants(p),
        objective=objective,
        loss=loss,
        delta=delta if loss == "huber" else 0.0,
        num_points=len(surface.L_P),
        num_starts=len(found),
        num_hits=num_hits,
        converged=converged,
        at_bound=_at_bound(surface, p, E),
        seconds=time.perf_counter() - began,
    )


def objective_at(fit: ParametricFit, N_P: np.ndarray, D_P: np.ndarray, L_P: np.ndarray) -> float:
    """What the sum of Huber's losses with the fit's delta is for constants found anywhere."""
    size_P = np.abs(fit.residuals(N_P, D_P, L_P))
    if fit.loss == "lad":
        return float(size_P.sum())
    return float(np.where(size_P <= fit.delta, 0.5 * size_P**2, fit.delta * (size_P - 0.5 * fit.delta)).sum())


def bootstrap(
    fit: ParametricFit,
    N_P: np.ndarray,
    D_P: np.ndarray,
    L_P: np.ndarray,
    run_P: np.ndarray | None = None,
    *,
    num: int = 1000,
    seed: int = 0,
    E: float | None = None,
) -> list[ParametricFit]:
    """The law of `num` sets of as many runs, drawn with replacement, each begun at `fit`. `run_P` numbers the run of
    each point (default: a run each): points of one run are drawn together, for they are not independent.

    A fit by absolute deviations is drawn with Huber's loss, which is smooth.
    """
    surface, generator = Surface(N_P, D_P, L_P), np.random.default_rng(seed)
    run_P = np.arange(len(L_P)) if run_P is None else run_P
    num_runs = int(run_P.max()) + 1
    start, fits = surface.parameters(fit), []
    for _ in range(num):
        weight_P = np.bincount(generator.integers(num_runs, size=num_runs), minlength=num_runs)[run_P].astype(float)
        value, p, converged = surface.minimise(start, fit.delta or DELTA, E, weight_P)
        constants = surface.constants(p)
        fits.append(
            dataclasses.replace(
                fit,
                E=constants["E"],
                A=constants["A"],
                B=constants["B"],
                alpha=constants["alpha"],
                beta=constants["beta"],
                objective=value * (fit.delta or DELTA),
                converged=converged,
                at_bound=_at_bound(surface, p, E),
                num_starts=1,
            )
        )
    return fits


def _check(N_P: np.ndarray, D_P: np.ndarray, L_P: np.ndarray) -> None:
    if len(L_P) < FEWEST_POINTS:
        raise ValueError(
            f"{len(L_P)} points for the five constants of L(N, D): at least {FEWEST_POINTS} are needed, and "
            "far more for intervals."
        )
    for name, values in (("N", N_P), ("D", D_P), ("the loss", L_P)):
        if not (np.isfinite(values).all() and (np.asarray(values) > 0).all()):
            raise ValueError(f"{name} of every point must be a positive number; leave out those that are not.")


def _at_bound(surface: Surface, p: np.ndarray, E: float | None) -> tuple[str, ...]:
    near = {"E": math.log(NO_E / LOWEST_E)}
    edges = zip(("A", "B", "E", "alpha", "beta"), p, surface.bounds(E), strict=True)
    return tuple(
        name
        for name, value, (low, high) in edges
        if high > low and (value - low < near.get(name, 1e-3) or high - value < 1e-3)
    )


def _least_absolute(surface: Surface, p: np.ndarray, E: float | None) -> tuple[np.ndarray, float]:
    """From the optimum of Huber's loss to that of absolute residuals: linear programs in a region that shrinks where
    one does not help. An optimum goes through as many points as it has parameters, where no gradient is zero."""
    from scipy.optimize import linprog

    value, radius = float(np.abs(surface.log_L_P - surface.predict(p)).sum()), 0.1
    bounds, num = surface.bounds(E), len(surface.L_P)
    scale = 1e4  # the solver's tolerance is 1e-7 of what it is given
    while radius > 1e-12:
        jacobian = _jacobian(surface, p)
        r_P = scale * (surface.log_L_P - surface.predict(p))
        # minimise the sum of t with |r - J d| <= t
        design = np.block([[-jacobian, -np.eye(num)], [jacobian, -np.eye(num)]])
        steps = [
            (scale * max(-radius, low - x), scale * min(radius, high - x))
            for x, (low, high) in zip(p, bounds, strict=True)
        ]
        costs, limits = np.r_[np.zeros(5), np.ones(num)], np.r_[-r_P, r_P]
        step = linprog(costs, design, limits, bounds=[*steps, *[(0, None)] * num]).x[:5] / scale
        reached = float(np.abs(surface.log_L_P - surface.predict(p + step)).sum())
        if reached < value:
            p, value, radius = p + step, reached, 2 * radius
        else:
            radius /= 4
    return p, value


def _jacobian(surface: Surface, p: np.ndarray) -> np.ndarray:
    """Of log losses by parameters, (P, 5)."""
    total = np.exp(surface.predict(p))
    of_A, of_B = np.exp(p[0] - p[3] * surface.u_P) / total, np.exp(p[1] - p[4] * surface.v_P) / total
    return np.stack([of_A, of_B, math.exp(p[2]) / total, -of_A * surface.u_P, -of_B * surface.v_P], axis=1)
