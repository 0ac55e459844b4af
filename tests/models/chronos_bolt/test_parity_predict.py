"""Forecasts against ChronosBoltPipeline: short and long horizons, levels the model has and has not."""

from __future__ import annotations

import numpy as np
import pytest
from bolt_parity import arrays, assert_quantiles, load

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_bolt.forecast import ChronosBoltForecaster


@pytest.fixture
def case(shared):
    return arrays(shared)


@pytest.fixture
def answers(shared, case):
    forecaster = ChronosBoltForecaster(load(shared))

    def ask(horizon: int, levels=forecaster.quantile_levels, **options) -> np.ndarray:
        unknown = np.full((1, horizon), np.nan, np.float32)
        inputs = [ForecastInput(row[None], unknown, num_targets=1) for row in case["in_context"]]
        return np.concatenate(forecaster.predict_quantiles(inputs, horizon, levels, **options))

    return ask


@pytest.mark.parametrize("batch_size", [256, 2])
def test_horizons(case, answers, batch_size):
    for name in ("out_predict", "out_predict_long"):
        reference = case[name]
        ours = answers(reference.shape[-1], batch_size=batch_size).transpose(0, 2, 1)
        assert_quantiles(ours, reference, case["out_scale"][..., None])


def test_levels(case, answers):
    reference = case["out_quantiles_005_033_05_09"]
    scale = case["out_scale"][..., None]
    assert_quantiles(answers(reference.shape[1], (0.05, 0.33, 0.5, 0.9)), reference, scale)
    assert_quantiles(answers(reference.shape[1], (0.5,))[..., 0], case["out_mean"], case["out_scale"])
