"""Does a model copy a season, follow growth, keep a calm level, stay silent? Planted series, and its error on them.

    python benchmarks/planted_series.py small auto-ets

An error is the mean over series and steps of the median forecast's absolute error, over that of the baseline named.
Axes: N series, L steps of the past, H steps ahead.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
import torch

from foreloom.data.forecast_input import forecast_input
from foreloom.evaluation.by_name import forecasters_by_name
from foreloom.evaluation.skill import BASELINE
from foreloom.models.family import Forecaster

NUM_SERIES = 64
CYCLES = 8
MOST_STEPS = 2048
AHEAD = 8
SEASONS = (7, 12, 24, 48, 144, 168, 288, 336)
"""Of which a model is asked one period more, 72 steps at most."""
NOISE = 0.05
"""Of a clean season's values, in deviations of the season."""


class Planted(NamedTuple):
    """Series with a known way to go on."""

    past_NL: np.ndarray
    future_NH: np.ndarray
    season: int = 1
    """Of the naive forecast it is measured by; 1: the last value."""


def seasonal(period: int) -> Planted:
    """A level of its own for every place of the period, and little noise: eight periods, 2,048 steps at most."""
    rng = np.random.default_rng(period)
    horizon = min(period, 72)
    length = min(CYCLES * period, MOST_STEPS)
    profile_NP = (
        rng.normal(size=(NUM_SERIES, period)).cumsum(1) if period > 24 else rng.normal(size=(NUM_SERIES, period))
    )
    profile_NP -= (
        profile_NP.mean(1, keepdims=True) + np.linspace(-1, 1, period) * (profile_NP[:, -1:] - profile_NP[:, :1]) / 2
    )
    profile_NP /= profile_NP.std(1, keepdims=True)
    values = 10 + np.tile(profile_NP, -(-(length + horizon) // period))[:, : length + horizon]
    return _cut(values + NOISE * rng.normal(size=values.shape), horizon, period)


def growing(share: float, length: int = 40) -> Planted:
    """Growth by `share` a step, a fifth of it more or less each time, as of a gross domestic product."""
    rng = np.random.default_rng(0)
    steps = share * (1 + 0.2 * rng.normal(size=(NUM_SERIES, length + AHEAD)))
    return _cut(100 * np.exp(steps.cumsum(1)), AHEAD)


def calm(noise: float = 0.002, length: int = 120) -> Planted:
    """A level that stays, and noise as a share of it."""
    rng = np.random.default_rng(1)
    return _cut(100 * (1 + noise * rng.normal(size=(NUM_SERIES, length + AHEAD))), AHEAD)


def walking(length: int = 240) -> Planted:
    """A random walk whose steps are small beside its level: nothing is better than the last value."""
    rng = np.random.default_rng(2)
    return _cut(100 * np.exp(0.01 * rng.normal(size=(NUM_SERIES, length + AHEAD)).cumsum(1)), AHEAD)


def silent(zeros: int = 200, length: int = 672) -> Planted:
    """Two to seven bursts of some thirty steps at most, as of rain or of a machine, and then nothing any more."""
    rng = np.random.default_rng(3)
    values = np.zeros((NUM_SERIES, length + 72))
    for row in values:
        for start in rng.integers(0, length - zeros - 30, rng.integers(2, 8)):
            num_steps = rng.integers(4, 30)
            row[start : start + num_steps] += 100 * rng.gamma(1.0) * np.hanning(num_steps + 2)[1:-1]
    return _cut(values, 72)


def _cut(values: np.ndarray, horizon: int, season: int = 1) -> Planted:
    values = values.astype(np.float32)
    return Planted(values[:, :-horizon], values[:, -horizon:], season)


def median_of(forecaster: Forecaster, planted: Planted) -> np.ndarray:
    """float (N, H)."""
    past_NL = planted.past_NL[:, -min(forecaster.context_length, planted.past_NL.shape[1]) :]
    horizon = planted.future_NH.shape[1]
    inputs = [forecast_input(row[None], {}, {}, horizon) for row in past_NL]
    return np.stack([answer[0, :, 0] for answer in forecaster.predict_quantiles(inputs, horizon, [0.5])])


def error_ratio(forecaster: Forecaster, planted: Planted) -> float:
    """The error over that of Seasonal Naive, of the last value where there is no season."""
    places = np.arange(planted.future_NH.shape[1]) % planted.season - planted.season
    error = lambda forecast_NH: np.abs(forecast_NH - planted.future_NH).mean()
    return float(error(median_of(forecaster, planted)) / error(planted.past_NL[:, places]))


def last_step_error(forecaster: Forecaster, planted: Planted) -> float:
    """How far the forecast of the last step lies off, as a share of the value: the median over the series, signed."""
    return float(np.median(median_of(forecaster, planted)[:, -1] / planted.future_NH[:, -1] - 1))


def share_of_past(forecaster: Forecaster, planted: Planted) -> float:
    """How large the forecasts are, as a share of the mean of the past."""
    return float(np.abs(median_of(forecaster, planted)).mean() / planted.past_NL.mean())


def main() -> None:
    torch.set_num_threads(1)
    asked = forecasters_by_name(sys.argv[1:], torch.device("cpu"))
    del asked[BASELINE]  # which all are measured by
    for name, forecaster in asked.items():
        print(f"{name}: error over that of Seasonal Naive, or of the last value")
        for period in SEASONS:
            print(f"  season of {period:<3}  {error_ratio(forecaster, seasonal(period)):.2f}")
        print(f"  calm level     {error_ratio(forecaster, calm()):.2f}")
        print(f"  random walk    {error_ratio(forecaster, walking()):.2f}")
        for share in (0.01, 0.03, 0.05):
            print(f"  growth of {share:.0%}   {last_step_error(forecaster, growing(share)):+.1%} at the eighth step")
        for zeros in (60, 200):
            print(f"  {zeros:>3} zeros      {share_of_past(forecaster, silent(zeros)):.1%} of the mean before them")


if __name__ == "__main__":
    main()
