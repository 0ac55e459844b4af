"""The classical models of the statsforecast package: AutoETS, AutoTheta and AutoARIMA, fitted to each series.

Axes: V targets, L context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.adapters.adapter import Adapter, past_of
from foreloom.evaluation.baselines import Fallbacks, SeasonalNaive, fill_missing
from foreloom.evaluation.metrics import BAND_ENDS

MOST_CONTEXT = 1024
"""Newest steps that are fitted: AutoARIMA takes minutes a series on longer ones."""


@dataclass
class StatisticalForecaster(Adapter):
    """`method` is a class of `statsforecast.models`. Every target is fitted alone; covariates are not read.

    Quantiles are ends of the model's own prediction intervals, the median is its mean. Missing values are filled with
    the last one before. Where a fit fails or its forecast is not finite, Seasonal Naive answers and `fallbacks` counts.
    """

    method: str
    season_length: int = 1
    is_univariate: bool = True
    context_length: int = MOST_CONTEXT
    fallbacks: Fallbacks = field(default_factory=Fallbacks)
    quantile_levels: tuple[float, ...] = tuple(sorted({*Adapter.quantile_levels, *BAND_ENDS}))

    def __post_init__(self) -> None:
        if not importlib.util.find_spec("statsforecast"):
            raise ValueError(
                f"{self.method} is of the package statsforecast, which is not installed: "
                "pip install 'foreloom[statistical]'."
            )

    def at_season(self, season_length: int) -> Self:
        return replace(self, season_length=season_length)

    def forecast(
        self, inputs: Sequence[ForecastInput], prediction_length: int, quantile_levels: Sequence[float]
    ) -> Sequence[np.ndarray]:
        return [
            np.stack([self._fit(past_L, prediction_length, quantile_levels) for past_L in fill_missing(past_of(one))])
            for one in inputs
        ]

    def _fit(self, past_L: np.ndarray, prediction_length: int, quantile_levels: Sequence[float]) -> np.ndarray:
        """(H, Q)."""
        models = importlib.import_module("statsforecast.models")
        model = getattr(models, self.method)(season_length=self.season_length)
        coverages = sorted({coverage for level in quantile_levels if (coverage := _coverage(level))})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = model.forecast(y=past_L, h=prediction_length, level=coverages or None)
            forecast_HQ = np.stack([answer[_key(level)] for level in quantile_levels], axis=-1)
        except Exception:  # the package raises bare Exception, and whatever its numerics raise on odd series
            forecast_HQ = np.full((prediction_length, len(quantile_levels)), np.nan)
        if np.isfinite(forecast_HQ).all():
            return forecast_HQ
        self.fallbacks.num += 1
        point_H = SeasonalNaive(self.season_length).point_forecast(past_L[None], prediction_length)[0]
        return np.repeat(point_H[:, None], len(quantile_levels), axis=-1)


def _coverage(level: float) -> float:
    """Percent of the central interval that ends at a quantile level; 0 for the median."""
    percent = round(200 * abs(level - 0.5), 9)
    return int(percent) if percent.is_integer() else percent


def _key(level: float) -> str:
    coverage = _coverage(level)
    return f"{'lo' if level < 0.5 else 'hi'}-{coverage}" if coverage else "mean"
