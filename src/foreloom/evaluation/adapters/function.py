"""Any model at all: a function of one's own as a forecaster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.adapters.outside import NO_LIMIT, OutsideForecaster

Predict = Callable[[Sequence[ForecastInput], int, Sequence[float]], Sequence[np.ndarray]]
"""predict(inputs, prediction_length, quantile_levels) -> for each input (V, H, Q), or (V, H) for single values."""


@dataclass
class FunctionForecaster(OutsideForecaster):
    """Scores whatever `predict` wraps: a web service, a package with an interface of its own, a formula.

    The targets' past of an input is `one.context_RC[:one.num_targets]`, (V, L) with NaN for missing values; covariates
    are the rows below, and those known ahead have their future in `one.future_RH`.
    """

    predict: Predict
    context_length: int = NO_LIMIT
    """The newest steps that `predict` is to get."""

    def forecast(
        self, inputs: Sequence[ForecastInput], prediction_length: int, quantile_levels: Sequence[float]
    ) -> Sequence[np.ndarray]:
        return self.predict(inputs, prediction_length, quantile_levels)
