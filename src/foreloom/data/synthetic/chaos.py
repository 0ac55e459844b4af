"""Chaotic motion: what is ruled by short laws, swings without a period and is soon beyond forecast.

Axes: B series, X coordinates, M monomials, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from foreloom.config.section import section
from foreloom.data.synthetic.chaotic_systems import MONOMIALS, SYSTEMS
from foreloom.data.synthetic.choices import Noise, Several
from foreloom.data.synthetic.draws import Draws
from foreloom.data.synthetic.process import Process
from foreloom.data.synthetic.units import shifted_and_scaled

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


PROCESS = Process(
    name="chaos",
    sentence="Chaotic flows and maps seen through one coordinate, clean or with noise.",
    settings=ChaosConfig,
    generate=generate,
    kinds=kinds,
)
