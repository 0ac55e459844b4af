"""Demand with many zeros: whole numbers now and then, as spare parts and slow sellers have it.

Axes: B series, N gaps between demands, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from foreloom.config.section import section
from foreloom.data.synthetic.process import Draws, Periods, Several, Share, StochasticProcess, refuse_idle_periods
from foreloom.data.synthetic.shapes import autoregression, negative_binomial, poisson, season, stretches

Kind = Literal["sporadic", "regular", "slow", "lifecycle", "spells"]


_PERIODS = (7, 12, 24, 52)
_SHORTEST_SPELL = 2


@section
class IntermittentConfig:
    """Intermittent demand."""

    kinds: Several[Kind] = ("sporadic", "regular", "slow", "lifecycle")
    """sporadic: demands at random, of sizes apart from them (Croston 1972). regular: orders at nearly equal gaps. slow:
    counts of a low rate, many of them 0. lifecycle: sporadic demand that comes up, stays and dies out, until
    the next product comes. spells, where it is named: nothing for long, then something for a while, as rain or a
    machine that runs; it has neither gaps nor a season."""
    most_gap: Annotated[float, Field(gt=1.25)] = 20.0
    """The most steps between demands on average; series have from 1.25 of them, log-uniform."""
    periods: Periods = _PERIODS
    """Lengths of the season of demand, in steps."""
    seasonal: Share = 0.5
    """Share of series with such a season; regular ones have none."""

    def __post_init__(self) -> None:
        refuse_idle_periods(self.periods, _PERIODS, self.seasonal)


def generate(draws: Draws, num_steps: int, settings: IntermittentConfig) -> np.ndarray:
    """float64 (B, T) of whole numbers from 0. A demand's size is 1 and a negative binomial number."""
    kind_B = _kind(draws, settings)
    gap_B = draws.log_uniform("gap", low=1.25, high=settings.most_gap)
    intensity_BT = _season(draws, num_steps, settings)
    rows = np.flatnonzero(kind_B == "lifecycle")
    intensity_BT[rows] *= _lifecycle(draws.rows(rows), num_steps)
    comes_BT = draws.uniform("comes", num_steps) < np.minimum(intensity_BT / gap_B[:, None], 0.98)
    rows = np.flatnonzero(kind_B == "regular")
    comes_BT[rows] = _regular(draws.rows(rows), gap_B[rows], num_steps)
    series_BT = comes_BT * (1 + _extra(draws, num_steps))
    rows = np.flatnonzero(kind_B == "spells")
    series_BT[rows] = _spells(draws.rows(rows), num_steps)
    rows = np.flatnonzero(kind_B == "slow")
    series_BT[rows] = poisson(draws.rows(rows), "slow", intensity_BT[rows] / gap_B[rows, None])
    return series_BT


def kinds(draws: Draws, settings: IntermittentConfig) -> Sequence[str]:
    return _kind(draws, settings).tolist()


def _kind(draws: Draws, settings: IntermittentConfig) -> np.ndarray:
    return draws.pick("kind", settings.kinds)


def _season(draws: Draws, num_steps: int, settings: IntermittentConfig) -> np.ndarray:
    """(B, T): how much likelier a demand is than on average."""
    period_B = draws.pick("season/period", settings.periods)
    strength_B1 = draws.uniform("season/strength", 1, low=0.2, high=1.0)
    strength_B1 *= draws.happens("seasonal", 1, probability=settings.seasonal)
    shape_BT = season(draws, "season", period_B, max(settings.periods), num_steps)
    return np.exp(strength_B1 * np.minimum(shape_BT, 3.0) - strength_B1**2 / 2)


def _lifecycle(draws: Draws, num_steps: int) -> np.ndarray:
    """(B, T) in 0 .. 1: an S-shaped rise before or after the first step, a fall one lifetime later, and so on."""
    lifetime_B1 = draws.log_uniform("life/time", 1, low=60.0, high=5000.0)
    launch_B1 = lifetime_B1 * draws.uniform("life/launch", 1, low=-0.6, high=0.4)
    rise_B1 = lifetime_B1 * draws.log_uniform("life/rise", 1, low=0.01, high=0.1)
    fall_B1 = lifetime_B1 * draws.log_uniform("life/fall", 1, low=0.03, high=0.2)
    next_B1 = lifetime_B1 * draws.uniform("life/next", 1, low=1.4, high=2.5)
    age_BT = (np.arange(num_steps) - launch_B1) % next_B1
    # Almost nothing at age 0: the middle of the rise is three widths later.
    rising_BT = 1 + np.tanh(age_BT / rise_B1 - 3)
    falling_BT = 1 - np.tanh((age_BT - lifetime_B1) / fall_B1)
    return rising_BT * falling_BT / 4


def _regular(draws: Draws, gap_B: np.ndarray, num_steps: int) -> np.ndarray:
    """bool (B, T): orders whose gaps vary by a few percent about the mean, rounded to steps."""
    most_gaps = num_steps + 1
    spread_B1 = draws.log_uniform("regular/spread", 1, low=0.01, high=0.3)
    gap_BN = gap_B[:, None] * (1 + spread_B1 * draws.uniform("regular/gap", most_gaps, low=-1.7, high=1.7))
    gap_BN[:, 0] *= draws.uniform("regular/start")
    at_BN = np.minimum(np.cumsum(gap_BN, axis=1), num_steps).astype(np.int64)
    comes_BT = np.zeros((len(gap_B), num_steps + 1), dtype=bool)
    comes_BT[np.arange(len(gap_B))[:, None], at_BN] = True
    return comes_BT[:, :num_steps]


def _spells(draws: Draws, num_steps: int) -> np.ndarray:
    """(B, T): spells of a height of their own, about which the steps wander; of two dry ones in a row one is made."""
    mean_B1 = draws.log_uniform("spells/length", 1, low=2.0 * _SHORTEST_SPELL, high=60.0)
    between = stretches(draws, "spells/change", mean_B1, _SHORTEST_SPELL, num_steps)
    share_B1 = draws.log_uniform("spells/share", 1, low=0.02, high=0.5)
    comes_BT = between.held(draws.uniform("spells/comes", between.most) < share_B1)
    height_BT = between.held(draws.normal("spells/height", between.most))
    about_BT = autoregression(draws.normal("spells/step", num_steps), draws.uniform("spells/lasting", high=0.95))
    size_B1 = draws.log_uniform("spells/size", 1, low=1.0, high=1000.0)
    return np.ceil(comes_BT * size_B1 * np.exp(0.7 * height_BT + 0.5 * about_BT))


def _extra(draws: Draws, num_steps: int) -> np.ndarray:
    """(B, T): what a demand is beyond 1: always nothing for a third of the series, a lot for some."""
    mean_B = draws.log_uniform("size/mean", low=0.3, high=100.0) * draws.happens("size/varies", probability=2 / 3)
    shape_B = draws.log_uniform("size/shape", low=0.5, high=20.0)
    return negative_binomial(draws, "size", np.repeat(mean_B[:, None], num_steps, axis=1), shape_B)


PROCESS = StochasticProcess(
    name="intermittent",
    sentence="Demand of whole numbers with many zeros: sporadic, regular, slow, or with a life of its own.",
    settings=IntermittentConfig,
    generate=generate,
    kinds=kinds,
)
