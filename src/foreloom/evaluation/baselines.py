"""Naive forecasters, the yardstick of every score: the last value, the last season, the straight line.

Axes: R rows, L context steps, H horizon steps, Q quantile levels. A point forecast stands at every quantile level, as
in Chronos's published Seasonal Naive scores; missing values are filled as GluonTS's `LastValueImputation` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Protocol, Self, runtime_checkable

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.family import Forecaster

NO_LIMIT = 2**62
"""Of steps, for models that take as many as there are."""


@runtime_checkable
class SeasonalForecaster(Forecaster, Protocol):
    """A forecaster that must be told the season of the series it is asked for."""

    def at_season(self, season_length: int) -> Self: ...


@dataclass
class Fallbacks:
    """A running count, shared by the copies that a forecaster makes of itself for other seasons."""

    num: int = 0


@runtime_checkable
class FallingBack(Protocol):
    """A forecaster that asks a simpler one where it fails, and counts it."""

    fallbacks: Fallbacks


def num_fallbacks(forecaster: Forecaster) -> int:
    """Targets so far that were forecast by a simpler model."""
    return forecaster.fallbacks.num if isinstance(forecaster, FallingBack) else 0


class _PointForecaster(ABC):
    """What the naive forecasters share: they read the whole past and give one value a step."""

    quantile_levels: tuple[float, ...] = (0.5,)
    context_length: int = NO_LIMIT
    prediction_length: int = NO_LIMIT
    is_autoregressive: bool = False
    is_univariate: bool = True

    @abstractmethod
    def point_forecast(self, filled_RL: np.ndarray, prediction_length: int) -> np.ndarray:
        """(rows, prediction_length) from a past without missing values."""

    def predict_quantiles(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int,
        quantile_levels: Sequence[float],
        *,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
    ) -> list[np.ndarray]:
        """See `Forecaster`; covariates are not read."""
        pasts = [one.context_RC[: one.num_targets] for one in inputs]
        pasts = pasts if context_length is None else [past_RL[:, -context_length:] for past_RL in pasts]
        forecasts: list[np.ndarray] = []
        for _, alike in groupby(pasts, key=lambda past_RL: past_RL.shape[1]):
            for batch in _batches(list(alike), batch_size):
                point_RH = self.point_forecast(fill_missing(np.concatenate(batch)), prediction_length)
                point_RHQ = np.repeat(point_RH[..., None], len(quantile_levels), axis=-1)
                ends = accumulate(len(past_RL) for past_RL in batch)
                forecasts += [point_RHQ[end - len(past_RL) : end] for past_RL, end in zip(batch, ends, strict=True)]
        return forecasts

    def on_scaled_data(self) -> Self:
        """Itself: no naive forecast depends on the scale."""
        return self

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        raise ValueError(f"{type(self).__name__} has no hidden states to embed with.")


class Naive(_PointForecaster):
    """The last value, repeated."""

    def point_forecast(self, filled_RL: np.ndarray, prediction_length: int) -> np.ndarray:
        return np.repeat(filled_RL[:, -1:], prediction_length, axis=-1)


@dataclass(frozen=True)
class SeasonalNaive(_PointForecaster):
    """The last season, repeated. A past shorter than a season: its mean, as GluonTS."""

    season_length: int = 1

    def at_season(self, season_length: int) -> Self:
        return replace(self, season_length=season_length)

    def point_forecast(self, filled_RL: np.ndarray, prediction_length: int) -> np.ndarray:
        if filled_RL.shape[-1] < self.season_length:
            return np.repeat(filled_RL.mean(axis=-1, keepdims=True), prediction_length, axis=-1)
        steps_H = np.arange(prediction_length) % self.season_length - self.season_length
        return filled_RL[:, steps_H]


class Drift(_PointForecaster):
    """The straight line through the first and the last value, prolonged."""

    def point_forecast(self, filled_RL: np.ndarray, prediction_length: int) -> np.ndarray:
        first_R1, last_R1 = filled_RL[:, :1], filled_RL[:, -1:]
        slope_R1 = (last_R1 - first_R1) / max(filled_RL.shape[-1] - 1, 1)
        return last_R1 + slope_R1 * np.arange(1, prediction_length + 1)


def _batches(pasts: list[np.ndarray], num_inputs: int) -> list[list[np.ndarray]]:
    return [pasts[first : first + num_inputs] for first in range(0, len(pasts), num_inputs)]


def fill_missing(past_RL: np.ndarray) -> np.ndarray:
    """Each missing value as the last observed one before it; at the start as the first observed; 0 if none is."""
    past_RL = np.asarray(past_RL, dtype=np.float64)
    observed_RL = np.isfinite(past_RL)
    if observed_RL.all():
        return past_RL
    first_R1 = observed_RL.argmax(axis=-1)[:, None]
    newest_RL = np.maximum.accumulate(np.where(observed_RL, np.arange(past_RL.shape[-1]), first_R1), axis=-1)
    filled_RL = np.take_along_axis(past_RL, newest_RL, axis=-1)
    return np.where(observed_RL.any(axis=-1, keepdims=True), filled_RL, 0.0)
