"""Exponential smoothing as a generator: a level, a slope and a season that each shock moves a little.

Axes: B series, P positions of the longest period, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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
from foreloom.data.synthetic.shapes import profile, scaled

_LEVEL_BOUNDS = (0.02, 50.0)
"""Where the level of multiplied errors turns round; it starts at 1."""
_ADDED_BOUNDS = (-20.0, 20.0)
"""The same of added errors."""
_FACTOR_BOUNDS = (0.02, 20.0)
"""Of a multiplied season."""


@section
class EtsConfig:
    """Innovations state space models of exponential smoothing."""

    periods: Periods = COMMON_PERIODS
    """Lengths of the season in steps."""
    trending: Share = 0.6
    """Share of series with a trend, half of them damped."""
    seasonal: Share = 0.7
    """Share of series with a season."""
    multiplicative: Share = 0.5
    """Share of series whose errors are multiplied, and most of their seasons: they stay positive."""
    noise: Noise = 0.2
    """The most deviation of a shock, in levels; series have from a hundredth of it, log-uniform."""

    def __post_init__(self) -> None:
        refuse_idle_periods(self.periods, COMMON_PERIODS, self.seasonal)


class _Variant(NamedTuple):
    """Error, trend and season of each series, bool (B,). A multiplied season goes with multiplied errors alone: with
    added ones it divides by values near zero (Hyndman et al. 2008, section 4)."""

    multiplied_error_B: np.ndarray
    trend_B: np.ndarray
    damped_B: np.ndarray
    season_B: np.ndarray
    multiplied_season_B: np.ndarray


def generate(draws: Draws, num_steps: int, settings: EtsConfig) -> np.ndarray:
    """float64 (B, T): Hyndman, Koehler, Ord and Snyder 2008, tables 2.2 and 2.3, the first level 1, then scaled.

    All variants are one recursion. With base = level + damping * slope, the prediction m is base [+ or *] season, the
    error e is the shock, or the shock times m, and y = m + e. Level and slope move by alpha * e and beta * e, divided
    by a multiplied season; the season moves by gamma * e, divided by base where it is multiplied.
    """
    variant = _variant(draws, settings)
    alpha_B, beta_B, gamma_B = _smoothing(draws, variant)
    damping_B = np.where(variant.damped_B, draws.uniform("damping", low=0.8, high=0.98), 1.0)
    level_B = np.ones(len(damping_B))
    slope_B = 0.003 * draws.normal("slope") * variant.trend_B
    period_B = draws.pick("season/period", settings.periods)
    season_PB = _first_season(draws, variant, period_B, max(settings.periods))
    position_B = (draws.uniform("season/start") * period_B).astype(np.int64)
    low_B, high_B = (
        np.where(variant.multiplied_error_B, bounds, added)
        for bounds, added in zip(_LEVEL_BOUNDS, _ADDED_BOUNDS, strict=True)
    )
    deviation_B1 = settings.noise * draws.log_uniform("noise", 1, low=0.01, high=1.0)
    shock_TB = np.array(np.clip(deviation_B1 * draws.normal("shock", num_steps), -0.9, 3.0).T, order="C")
    row_B = np.arange(len(level_B))
    series_TB = np.empty_like(shock_TB)
    for step in range(num_steps):
        season_B = season_PB[position_B, row_B]
        factor_B = np.where(variant.multiplied_season_B, season_B, 1.0)
        ahead_B = level_B + damping_B * slope_B
        base_B = np.minimum(np.maximum(ahead_B, low_B), high_B)
        predicted_B = np.where(variant.multiplied_season_B, base_B * season_B, base_B + season_B)
        error_B = shock_TB[step] * np.where(variant.multiplied_error_B, predicted_B, 1.0)
        series_TB[step] = predicted_B + error_B
        level_B = base_B + alpha_B * error_B / factor_B
        # At a bound the slope turns round.
        slope_B = damping_B * np.where(base_B == ahead_B, slope_B, -slope_B) + beta_B * error_B / factor_B
        season_B = season_B + gamma_B * error_B / np.where(variant.multiplied_season_B, base_B, 1.0)
        season_B = np.where(variant.multiplied_season_B, season_B.clip(*_FACTOR_BOUNDS), season_B)
        season_PB[position_B, row_B] = season_B
        position_B = (position_B + 1) % period_B
    return scaled(draws, series_TB.T)


def kinds(draws: Draws, settings: EtsConfig) -> Sequence[str]:
    """As Hyndman writes them: error, trend and season, each A (added), M (multiplied), N (none) or Ad (damped)."""
    variant = _variant(draws, settings)
    return [
        f"ETS({'AM'[int(error)]},{'N' if not trend else 'Ad' if damped else 'A'},"
        f"{'N' if not season else 'AM'[int(multiplied)]})"
        for error, trend, damped, season, multiplied in zip(*variant, strict=True)
    ]


def _variant(draws: Draws, settings: EtsConfig) -> _Variant:
    multiplied_B = draws.happens("variant/multiplied", probability=settings.multiplicative)
    trend_B = draws.happens("variant/trend", probability=settings.trending)
    season_B = draws.happens("variant/season", probability=settings.seasonal)
    return _Variant(
        multiplied_error_B=multiplied_B,
        trend_B=trend_B,
        damped_B=trend_B & draws.happens("variant/damped", probability=0.5),
        season_B=season_B,
        multiplied_season_B=season_B & multiplied_B & draws.happens("variant/factor", probability=0.75),
    )


def _smoothing(draws: Draws, variant: _Variant) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """alpha, beta and gamma in the usual region 0 < beta < alpha < 1, 0 < gamma < 1 - alpha, most of them small: a
    slope and a season that follow each shock would soon be noise."""
    alpha_B = draws.log_uniform("alpha", low=0.01, high=0.9)
    beta_B = alpha_B * draws.log_uniform("beta", low=0.001, high=0.05) * variant.trend_B
    gamma_B = (1 - alpha_B) * draws.log_uniform("gamma", low=0.01, high=0.4) * variant.season_B
    return alpha_B, beta_B, gamma_B


def _first_season(draws: Draws, variant: _Variant, period_B: np.ndarray, longest: int) -> np.ndarray:
    """(P, B): a profile of strength 0.02 .. 0.6 levels, as factors where it is multiplied; 0 where there is none."""
    strength_B1 = draws.log_uniform("season/strength", 1, low=0.02, high=0.6)
    shape_BP = strength_B1 * profile(draws, "season", period_B, longest)
    shape_BP *= variant.season_B[:, None]
    factor_BP = np.exp(shape_BP).clip(*_FACTOR_BOUNDS)
    return np.array(np.where(variant.multiplied_season_B[:, None], factor_BP, shape_BP).T, order="C")


PROCESS = StochasticProcess(
    name="ets",
    sentence="Levels, slopes and seasons that each shock moves a little: exponential smoothing run forward.",
    settings=EtsConfig,
    generate=generate,
    kinds=kinds,
)
