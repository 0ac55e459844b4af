"""Routing without a forecast: that of the forecast, and nothing is decoded for it."""

import numpy as np
import pytest

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from foreloom.models.family import RoutedForecaster


def an_input(values) -> ForecastInput:
    rows = np.atleast_2d(np.asarray(values, np.float32))
    return ForecastInput(rows, np.empty((len(rows), 0), np.float32), num_targets=len(rows))


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    return [an_input(rng.normal(size=shape).cumsum(-1)) for shape in ((96,), (2, 50), (7,), (1, 96))]


def test_it_is_the_routing_of_the_forecast(tiny_chronos_t5, inputs, monkeypatch):
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    assert isinstance(forecaster, RoutedForecaster)
    _, info = forecaster.predict_with_routing_info(inputs, 4)
    forecaster.usage.reset()

    def never(*_):
        raise AssertionError("nothing is to be decoded")

    monkeypatch.setattr(tiny_chronos_t5.decoder, "forward", never)
    for options in ({}, {"batch_size": 2}):
        choices = forecaster.route(inputs, **options)
        assert choices.chosen_RLE.shape == choices.probability_RLE.shape == (5, 1, 4) and choices.top_k == 2
        np.testing.assert_allclose(choices.probability_RLE[:, 0], info.router_probs, rtol=1e-5)
        expected = [[int(expert in row) for expert in range(4)] for row in info.expert_indices]
        np.testing.assert_array_equal(choices.chosen_RLE[:, 0], expected)
    assert forecaster.usage.statistics().num_samples == 0


def test_the_newest_steps_only(tiny_chronos_t5, inputs):
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    cut = [an_input(x.context_RC[:, -20:]) for x in inputs]
    np.testing.assert_array_equal(
        forecaster.route(inputs, context_length=20).probability_RLE, forecaster.route(cut).probability_RLE
    )
    with pytest.raises(ValueError, match="context_length is 97; this model takes 1 to 96"):
        forecaster.route(inputs, context_length=97)
