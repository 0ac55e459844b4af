"""Chaotic motion: what is ruled by short laws, swings without a period and is soon beyond forecast.

Flows and maps have quadratic right sides, kept as tables of coefficients.

Axes: B series, X coordinates, M monomials, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from foreloom.config.section import section
from foreloom.data.synthetic.process import Draws, Noise, Several, StochasticProcess
from foreloom.data.synthetic.shapes import shifted_and_scaled

MONOMIALS = ("1", "x", "y", "z", "xx", "yy", "zz", "xy", "yz", "zx")
"""What a right side is a weighted sum of."""

Terms = Mapping[str, float]


@dataclass(frozen=True)
class System:
    """A flow dx/dt = f(x), or a map x[t+1] = f(x[t]), of up to three coordinates that move on a strange attractor."""

    sides: tuple[Terms, Terms, Terms]
    """f of each coordinate: monomial -> coefficient."""
    start: tuple[float, float, float]
    """A point from which all of its neighbours fall onto the attractor."""
    spread: tuple[float, float, float]
    """Rounded deviation of each coordinate on the attractor; 0 for one that the system does not have."""
    varied: float
    """Share by which each coefficient may be off and the system stays on a bounded attractor."""
    step: tuple[float, float] = (0.0, 0.0)
    """The least and the most time between two steps of the series; (0, 0) says that it is a map."""

    @property
    def is_map(self) -> bool:
        return self.step[1] == 0

    def coefficients(self) -> np.ndarray:
        """float64 (X, M)."""
        return np.array([[side.get(monomial, 0.0) for monomial in MONOMIALS] for side in self.sides])


SYSTEMS: dict[str, System] = {
    # Lorenz 1963.
    "lorenz": System(
        ({"x": -10, "y": 10}, {"x": 28, "y": -1, "zx": -1}, {"z": -8 / 3, "xy": 1}),
        start=(5, 5, 25),
        spread=(8, 9, 8.5),
        varied=0.05,
        step=(0.01, 0.05),
    ),
    # Roessler 1976.
    "rossler": System(
        ({"y": -1, "z": -1}, {"x": 1, "y": 0.2}, {"1": 0.2, "z": -5.7, "zx": 1}),
        start=(4, -3, 0.1),
        spread=(5, 4.7, 2.8),
        varied=0.04,
        step=(0.05, 0.15),
    ),
    # Chen and Ueta 1999.
    "chen": System(
        ({"x": -35, "y": 35}, {"x": -7, "y": 28, "zx": -1}, {"z": -3, "xy": 1}),
        start=(5, 5, 20),
        spread=(8, 8.5, 6.5),
        varied=0.02,
        step=(0.004, 0.015),
    ),
    # Halvorsen's cyclic system, in Sprott 2003.
    "halvorsen": System(
        (
            {"x": -1.4, "y": -4, "z": -4, "yy": -1},
            {"y": -1.4, "z": -4, "x": -4, "zz": -1},
            {"z": -1.4, "x": -4, "y": -4, "xx": -1},
        ),
        start=(-6, -1, 0),
        spread=(3.3, 3.3, 3.3),
        varied=0.01,
        step=(0.01, 0.04),
    ),
    # Rucklidge 1992, double convection.
    "rucklidge": System(
        ({"x": -2, "y": 6.7, "yz": -1}, {"x": 1}, {"z": -1, "yy": 1}),
        start=(1, 1, 4.5),
        spread=(2.7, 2.5, 3),
        varied=0.03,
        step=(0.03, 0.15),
    ),
    # Sprott 1994, case B.
    "sprott_b": System(
        ({"yz": 1}, {"x": 1, "y": -1}, {"1": 1, "xy": -1}),
        start=(0.5, 0.5, 0.1),
        spread=(1.4, 1, 1.3),
        varied=0.05,
        step=(0.05, 0.2),
    ),
    # Verhulst's map at its wildest (May 1976).
    "logistic": System(({"x": 3.85, "xx": -3.85}, {}, {}), start=(0.4, 0, 0), spread=(0.28, 0, 0), varied=0.035),
    # Henon 1976.
    "henon": System(
        ({"1": 1, "xx": -1.33, "y": 1}, {"x": 0.3}, {}), start=(0.1, 0.1, 0), spread=(0.72, 0.22, 0), varied=0.02
    ),
    # A population that is eaten by its own past (Maynard Smith 1968).
    "delayed_logistic": System(
        ({"x": 2.2, "xy": -2.2}, {"x": 1}, {}), start=(0.5, 0.4, 0), spread=(0.3, 0.3, 0), varied=0.02
    ),
}


Name = Literal[
    "lorenz",
    "rossler",
    "chen",
    "halvorsen",
    "rucklidge",
    "sprott_b",
    "logistic",
    "henon",
    "delayed_logistic",
    "mackey_glass",
]
_ALL: tuple[Name, ...] = get_args(Name)

_WARM_UP_STEPS = 64
"""Steps in which a series comes from its start onto the attractor."""
_WALL = 30.0
"""In spreads, where a coordinate is held: a coefficient off by chance cannot carry a series away."""


@section
class ChaosConfig:
    """Chaotic flows and maps."""

    systems: Several[Name] = _ALL
    """The flows and maps to choose from."""
    noise: Noise = 0.2
    """The most observation noise, in deviations of the motion; half the series have none, the others from a hundredth
    of it, log-uniform."""


def generate(draws: Draws, num_steps: int, settings: ChaosConfig) -> np.ndarray:
    """float64 (B, T): a coordinate of a system whose coefficients are a little off and whose clock is random."""
    name_B = _name(draws, settings)
    series_BT = np.empty((len(name_B), num_steps))
    delayed_B = name_B == "mackey_glass"
    series_BT[delayed_B] = _mackey_glass(draws.rows(delayed_B), num_steps)
    # All others run as one: a system is a table of coefficients.
    series_BT[~delayed_B] = _quadratic(draws.rows(~delayed_B), name_B[~delayed_B], num_steps)
    noise_B1 = settings.noise * draws.log_uniform("noise", 1, low=0.01, high=1.0)
    rows = np.flatnonzero(draws.happens("noisy", probability=0.5))
    series_BT[rows] += noise_B1[rows] * draws.rows(rows).normal("observation", num_steps)
    return shifted_and_scaled(draws, series_BT)


def kinds(draws: Draws, settings: ChaosConfig) -> Sequence[str]:
    return _name(draws, settings).tolist()


def _name(draws: Draws, settings: ChaosConfig) -> np.ndarray:
    return draws.pick("system", settings.systems)


def _quadratic(draws: Draws, name_B: np.ndarray, num_steps: int) -> np.ndarray:
    """(B, T) in spreads of the coordinate seen."""
    names = sorted(SYSTEMS)
    table = [SYSTEMS[name] for name in names]
    number_B = np.searchsorted(names, name_B)
    spread_BX = np.array([system.spread for system in table])[number_B]
    start_BX = np.array([system.start for system in table])[number_B]
    start_BX = start_BX + 0.05 * spread_BX * draws.uniform("start", 3, low=-1.0, high=1.0)
    varied_B11 = np.array([system.varied for system in table])[number_B, None, None]
    coefficient_BXM = np.array([system.coefficients() for system in table])[number_B]
    coefficient_BXM *= 1 + varied_B11 * draws.uniform("off", 3, len(MONOMIALS), low=-1.0, high=1.0)
    low_B, high_B = np.array([system.step for system in table])[number_B].T
    clock_B = low_B + (high_B - low_B) * draws.uniform("clock")
    seen_B = (draws.uniform("seen") * (spread_BX > 0).sum(axis=1)).astype(np.int64)
    is_map_B = np.array([system.is_map for system in table])[number_B]
    series_BT = np.empty((len(name_B), num_steps))
    for rows in (np.flatnonzero(is_map_B), np.flatnonzero(~is_map_B)):
        path_TXB = _path(
            coefficient_BXM[rows].transpose(2, 1, 0).copy(),
            start_BX[rows].T.copy(),
            _WALL * spread_BX[rows].T,
            clock_B[rows] if not is_map_B[rows].any() else None,
            num_steps + _WARM_UP_STEPS,
        )
        seen_BT = path_TXB[_WARM_UP_STEPS:, seen_B[rows], np.arange(len(rows))].T
        series_BT[rows] = seen_BT / spread_BX[rows, seen_B[rows], None]
    return series_BT


def _path(
    coefficient_MXB: np.ndarray, x_XB: np.ndarray, wall_XB: np.ndarray, clock_B: np.ndarray | None, num_steps: int
) -> np.ndarray:
    """(T, X, B): the states of maps, or of flows by the classical method of Runge and Kutta, one step of it a step."""
    monomial_M1B = np.ones((len(MONOMIALS), 1, x_XB.shape[1]))
    path_TXB = np.empty((num_steps, *x_XB.shape))
    for step in range(num_steps):
        if clock_B is None:
            x_XB = _right_side(coefficient_MXB, x_XB, monomial_M1B)
        else:
            first = _right_side(coefficient_MXB, x_XB, monomial_M1B)
            second = _right_side(coefficient_MXB, x_XB + clock_B / 2 * first, monomial_M1B)
            third = _right_side(coefficient_MXB, x_XB + clock_B / 2 * second, monomial_M1B)
            fourth = _right_side(coefficient_MXB, x_XB + clock_B * third, monomial_M1B)
            x_XB = x_XB + clock_B / 6 * (first + 2 * (second + third) + fourth)
        x_XB = np.minimum(np.maximum(x_XB, -wall_XB), wall_XB)
        path_TXB[step] = x_XB
    return path_TXB


def _right_side(coefficient_MXB: np.ndarray, x_XB: np.ndarray, monomial_M1B: np.ndarray) -> np.ndarray:
    """f(x); `monomial_M1B` is its workspace, the first of them 1. The sum goes over the outermost axis: so its terms
    are added in one order however many series there are, and chaos does not make two series of one."""
    power_MB = monomial_M1B[:, 0]
    power_MB[1:4] = x_XB
    np.multiply(x_XB, x_XB, out=power_MB[4:7])
    np.multiply(x_XB[:2], x_XB[1:], out=power_MB[7:9])
    np.multiply(x_XB[2], x_XB[0], out=power_MB[9])
    return np.add.reduce(coefficient_MXB * monomial_M1B, axis=0)


def _mackey_glass(draws: Draws, num_steps: int) -> np.ndarray:
    """(B, T) in spreads: dx/dt = 0.2 x(t - delay) / (1 + x(t - delay)^n) - 0.1 x (Mackey and Glass 1977), one unit of
    time a step or less, solved exactly between steps for what was a delay ago."""
    clock_B = draws.uniform("delay/clock", low=0.5, high=1.5)
    delay_B = np.rint(draws.uniform("delay/time", low=17.0, high=40.0) / clock_B).astype(np.int64)
    power_B = draws.uniform("delay/power", low=9.0, high=11.0)
    decay_B = np.exp(-0.1 * clock_B)
    # The past before the first step is a slow wave: constant pasts would leave series of one delay alike.
    num_warm = 4 * _WARM_UP_STEPS
    wave_BT = np.sin(0.05 * np.arange(num_warm) + draws.uniform("delay/wave", 1, high=2 * np.pi))
    x_TB = np.empty((num_warm + num_steps, len(clock_B)))
    x_TB[:num_warm] = 0.9 + 0.3 * wave_BT.T
    row_B = np.arange(len(clock_B))
    for step in range(num_warm // 2, len(x_TB)):
        past_B = x_TB[step - delay_B, row_B]
        x_TB[step] = decay_B * x_TB[step - 1] + 2 * (1 - decay_B) * past_B / (1 + past_B**power_B)
    return (x_TB[num_warm:].T - 0.9) / 0.23


PROCESS = StochasticProcess(
    name="chaos",
    sentence="Chaotic flows and maps seen through one coordinate, clean or with noise.",
    settings=ChaosConfig,
    generate=generate,
    kinds=kinds,
)
