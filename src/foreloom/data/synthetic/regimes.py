"""Trends, seasons and noise whose strengths change at random change points: the everyday business series.

Axes: B series, N stretches between change points, P positions of the longest period, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from foreloom.config.section import section
from foreloom.data.synthetic.process import (
    COMMON_PERIODS,
    Draws,
    Noise,
    Periods,
    Share,
    StochasticProcess,
    refuse_idle_periods,
)
from foreloom.data.synthetic.shapes import (
    Stretches,
    autoregression,
    scaled,
    season,
    shifted_and_scaled,
    stretches,
    weekdays,
)

_SHORTEST = 24
_LARGEST_GROWTH = 4.0
"""Logarithm of how far a growing series rises or falls in the end."""
_LONGEST_REACH = 6000.0
_LARGEST_SEASON = 3.0
"""Logarithm of how far the busiest position of a period lies above the middle one."""


@section
class RegimesConfig:
    """Trend and season with regimes."""

    periods: Periods = COMMON_PERIODS
    """Lengths of the season in steps; each series has one of them."""
    seasonal: Share = 0.85
    """Share of series with a season. Among those of periods from 24 on, half have weekdays too."""
    multiplicative: Share = 0.5
    """Share of series that are positive: trend times season times noise. The others add them."""
    noise: Noise = 1.0
    """The most noise, as a share of the season's strength; series have from a five-hundredth of it, log-uniform."""
    mean_stretch: Annotated[int, Field(ge=_SHORTEST)] = 250
    """Mean number of steps between change points of slope, level, season and noise; half to twice as many by
    series."""
    reach: Annotated[float, Field(ge=1, lt=_LONGEST_REACH)] = 60.0
    """Fewest steps in which a trend comes as far as its season is strong; series have from it to 6000, log-uniform."""

    def __post_init__(self) -> None:
        refuse_idle_periods(self.periods, COMMON_PERIODS, self.seasonal)


def generate(draws: Draws, num_steps: int, settings: RegimesConfig) -> np.ndarray:
    """float64 (B, T). Multiplicative series follow ForecastPFN (Dooley et al. 2023): a trend times a season
    times Weibull noise; the piecewise trends follow TimesFM's synthetic data (Das et al. 2024)."""
    mean_B1 = draws.log_uniform("mean_stretch", 1, low=0.5, high=2.0) * settings.mean_stretch
    between = stretches(draws, "change", np.maximum(mean_B1, _SHORTEST), _SHORTEST, num_steps)
    trend_BT = _trend(draws, between, settings)
    season_BT = _season(draws, between, settings)
    series_BT = np.empty_like(trend_BT)
    multiplied_B = _multiplicative(draws, settings)
    for rows, combine in ((multiplied_B, _multiplied), (~multiplied_B, _added)):
        part = Stretches(between.number_BT[rows], between.age_BT[rows], between.most)
        series_BT[rows] = combine(draws.rows(rows), trend_BT[rows], season_BT[rows], part, settings)
    return series_BT


def kinds(draws: Draws, settings: RegimesConfig) -> Sequence[str]:
    return np.where(_multiplicative(draws, settings), "multiplicative", "additive").tolist()


def _multiplicative(draws: Draws, settings: RegimesConfig) -> np.ndarray:
    return draws.happens("multiplicative", probability=settings.multiplicative)


def _trend(draws: Draws, between: Stretches, settings: RegimesConfig) -> np.ndarray:
    """(B, T), in the season's strength: a slope a stretch, damped in some, with a step at some change points."""
    reach_B1 = draws.log_uniform("trend/reach", 1, low=settings.reach, high=_LONGEST_REACH)
    slope_BN = draws.normal("trend/slope", between.most) / reach_B1
    persistent_B1 = draws.normal("trend/drift", 1) / reach_B1
    slope_BT = between.held(slope_BN) + persistent_B1
    memory_B1 = draws.log_uniform("trend/memory", 1, low=10.0, high=200.0)
    damped_B1 = draws.happens("trend/damped", 1, probability=0.25)
    slope_BT *= np.where(damped_B1, 10 * np.exp(-between.age_BT / memory_B1), 1.0)
    step_BN = draws.normal("trend/step", between.most) * draws.happens(
        "trend/steps", between.most, probability=draws.uniform("trend/share_of_steps", 1, high=0.4)
    )
    step_B1 = draws.log_uniform("trend/size_of_steps", 1, low=0.1, high=1.5)
    return np.cumsum(slope_BT, axis=1) + between.held(np.cumsum(step_BN, axis=1)) * step_B1


def _season(draws: Draws, between: Stretches, settings: RegimesConfig) -> np.ndarray:
    """(B, T) of strength about 1; 0 for series without a season."""
    num_steps = between.number_BT.shape[1]
    period_B = draws.pick("season/period", settings.periods)
    shape_BT = season(draws, "season", period_B, max(settings.periods), num_steps)
    days_BT = np.arange(num_steps) / period_B[:, None] + draws.uniform("season/days", 1, high=7.0)
    weekly_B1 = draws.happens("season/weekly", 1, probability=0.5) & (period_B[:, None] >= 24)
    strength_B1 = draws.uniform("season/week", 1, low=0.1, high=0.8) * weekly_B1
    week_BT = weekdays(draws, "season", days_BT)
    # Days of a week differ in level and in how strong their own profile is.
    shape_BT = shape_BT * (1 + 0.5 * strength_B1 * week_BT) + strength_B1 * week_BT
    wave_B1 = period_B[:, None] * draws.log_uniform("season/wave", 1, low=4.0, high=40.0)
    depth_B1 = draws.uniform("season/depth", 1, high=0.6) * draws.happens("season/modulated", 1, probability=0.3)
    slow_BT = 1 + depth_B1 * np.sin(
        2 * np.pi * (np.arange(num_steps) / wave_B1 + draws.uniform("season/wave_start", 1))
    )
    varies_B1 = draws.uniform("season/varies", 1, high=0.5) * draws.happens("season/changes", 1, probability=0.4)
    regime_BT = between.held(np.exp(varies_B1 * draws.normal("season/regime", between.most)))
    seasonal_B1 = draws.happens("seasonal", 1, probability=settings.seasonal)
    return seasonal_B1 * slow_BT * regime_BT * shape_BT


def _multiplied(
    draws: Draws, trend_BT: np.ndarray, season_BT: np.ndarray, between: Stretches, settings: RegimesConfig
) -> np.ndarray:
    strength_B1 = draws.log_uniform("multiplied/season", 1, low=0.05, high=0.8)
    growth_B1 = draws.log_uniform("multiplied/growth", 1, low=0.1, high=1.0)
    growth_BT = _LARGEST_GROWTH * np.tanh(growth_B1 * trend_BT / _LARGEST_GROWTH)
    season_BT = np.minimum(strength_B1 * season_BT, _LARGEST_SEASON)
    # Weibull noise about its own median, which is 1 at noise 0 (as in ForecastPFN).
    shape_B1 = draws.uniform("multiplied/shape", 1, low=1.5, high=5.0)
    uniform_BT = draws.uniform("multiplied/noise", trend_BT.shape[1])
    weibull_BT = (-np.log1p(-uniform_BT)) ** (1 / shape_B1) - np.log(2) ** (1 / shape_B1)
    noise_BT = np.maximum(1 + strength_B1 * _noise_strength(draws, between, settings) * weibull_BT, 0.01)
    return scaled(draws, np.exp(growth_BT + season_BT) * noise_BT)


def _added(
    draws: Draws, trend_BT: np.ndarray, season_BT: np.ndarray, between: Stretches, settings: RegimesConfig
) -> np.ndarray:
    lasting_B = draws.uniform("added/correlation", low=0.2, high=0.95)
    lasting_B *= draws.happens("added/correlated", probability=0.4)
    noise_BT = autoregression(draws.normal("added/noise", trend_BT.shape[1]), lasting_B)
    noise_BT *= _noise_strength(draws, between, settings)
    return shifted_and_scaled(draws, trend_BT + season_BT + noise_BT)


def _noise_strength(draws: Draws, between: Stretches, settings: RegimesConfig) -> np.ndarray:
    strength_B1 = settings.noise * draws.log_uniform("noise/strength", 1, low=1 / 500, high=1.0)
    varies_B1 = 0.7 * draws.happens("noise/changes", 1, probability=0.3)
    return strength_B1 * between.held(np.exp(varies_B1 * draws.normal("noise/regime", between.most)))


PROCESS = StochasticProcess(
    name="regimes",
    sentence="Trends, seasons and noise that change at change points, added or multiplied.",
    settings=RegimesConfig,
    generate=generate,
    kinds=kinds,
)
