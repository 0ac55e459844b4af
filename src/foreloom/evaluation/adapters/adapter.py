"""Models that are not ours as forecasters, made of one method or of one function.

Axes: V targets, L context steps, H horizon steps, Q quantile levels, R rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.baselines import NO_LIMIT

Predict = Callable[[Sequence[ForecastInput], int, Sequence[float]], Sequence[np.ndarray]]
"""predict(inputs, prediction_length, quantile_levels) -> for each input (V, H, Q), or (V, H) for single values."""


class Adapter(ABC):
    """A `Forecaster` from one method, `forecast`."""

    quantile_levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    context_length: int = NO_LIMIT
    prediction_length: int = NO_LIMIT
    is_autoregressive: bool = False
    is_univariate: bool = False

    @abstractmethod
    def forecast(
        self, inputs: Sequence[ForecastInput], prediction_length: int, quantile_levels: Sequence[float]
    ) -> Sequence[np.ndarray]:
        """(V, H, Q) an input, or (V, H) from a model of single values, in the units of the data."""

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
        """See `Forecaster`. Raises ValueError for answers of another shape, and where `cross_learning` is wanted."""
        if context_length is not None and context_length > self.context_length:
            raise ValueError(
                f"context_length is {context_length:,}; {self._name} takes {self.context_length:,} steps at most."
            )
        if cross_learning:
            raise ValueError(f"{self._name} forecasts each input alone: cross_learning has no effect on it.")
        newest = self.context_length if context_length is None else context_length
        cut = [replace(one, context_RC=one.context_RC[:, -newest:]) for one in inputs]
        forecasts: list[np.ndarray] = []
        for batch in _batches(cut, batch_size):
            answers = self.forecast(batch, prediction_length, quantile_levels)
            if len(answers) != len(batch):
                raise ValueError(f"{self._name} gave {len(answers)} forecasts for {len(batch)} inputs.")
            for one, answer in zip(batch, answers, strict=True):
                forecasts.append(self._checked(answer, one.num_targets, prediction_length, len(quantile_levels)))
        return forecasts

    def on_scaled_data(self) -> Self:
        """Itself: what it does to the scale is its own affair."""
        return self

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        raise ValueError(f"{self._name} has no hidden states to embed with.")

    def _checked(self, answer: np.ndarray, num_targets: int, prediction_length: int, num_levels: int) -> np.ndarray:
        array = np.asarray(answer)
        if array.shape == (num_targets, prediction_length):
            array = np.repeat(array[..., None], num_levels, axis=-1)
        wanted = (num_targets, prediction_length, num_levels)
        if array.shape != wanted:
            raise ValueError(
                f"{self._name} gave a forecast of shape {array.shape}; (targets, steps, quantile levels) are {wanted}."
            )
        return array

    @property
    def _name(self) -> str:
        return type(self).__name__


@dataclass
class FunctionForecaster(Adapter):
    """Scores whatever `predict` wraps: a web service, a package with an interface of its own, a formula.

    The targets' past of an input is `one.context_RC[:one.num_targets]`, (V, L) with NaN for missing values, float32 or
    float64 as the data are; covariates are the rows below, and those known ahead have their future in `one.future_RH`.
    """

    predict: Predict
    context_length: int = NO_LIMIT
    """The newest steps that `predict` is to get."""

    def forecast(
        self, inputs: Sequence[ForecastInput], prediction_length: int, quantile_levels: Sequence[float]
    ) -> Sequence[np.ndarray]:
        return self.predict(inputs, prediction_length, quantile_levels)


def past_of(one: ForecastInput) -> np.ndarray:
    """The targets' own past (V, L)."""
    return one.context_RC[: one.num_targets]


def _batches(inputs: Sequence[ForecastInput], batch_size: int) -> Iterator[list[ForecastInput]]:
    """As many inputs together as have `batch_size` rows; one with more stands alone."""
    batch: list[ForecastInput] = []
    num_rows = 0
    for one in inputs:
        if batch and num_rows + len(one.context_RC) > batch_size:
            yield batch
            batch, num_rows = [], 0
        batch.append(one)
        num_rows += len(one.context_RC)
    if batch:
        yield batch
