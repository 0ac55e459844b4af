"""Naive forecasters: what they say, and how they read missing values."""

import numpy as np
import pytest

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.baselines import Drift, Naive, SeasonalForecaster, SeasonalNaive, fill_missing


def ask(forecaster, past, horizon=5, levels=(0.1, 0.5, 0.9), **options):
    context = np.atleast_2d(np.array(past, dtype=np.float32))
    one = ForecastInput(context, np.full((len(context), horizon), np.nan, np.float32), num_targets=1)
    return forecaster.predict_quantiles([one], horizon, levels, **options)[0]


def test_each_baseline_by_hand():
    past = [1, 2, 3, 10, 20, 30]
    np.testing.assert_array_equal(ask(Naive(), past)[0, :, 1], [30] * 5)
    np.testing.assert_array_equal(ask(SeasonalNaive(3), past)[0, :, 1], [10, 20, 30, 10, 20])
    np.testing.assert_allclose(ask(Drift(), past, 2)[0, :, 1], [30 + 29 / 5, 30 + 58 / 5])
    np.testing.assert_array_equal(ask(SeasonalNaive(3), past, context_length=4), ask(SeasonalNaive(3), past))


def test_a_past_shorter_than_the_season_gives_its_mean():
    np.testing.assert_array_equal(ask(SeasonalNaive(7), [1, 2, 6])[0, :, 0], [3] * 5)


def test_the_point_stands_at_every_level_and_covariates_are_not_forecast():
    forecast = ask(Naive(), [[1, 2], [7, 8]])
    assert forecast.shape == (1, 5, 3)
    assert forecast.dtype == np.float64, "a baseline rounds nothing"
    assert (forecast == 2).all()


def test_missing_values_take_the_last_observed_one():
    nan = np.nan
    filled = fill_missing(np.array([[nan, 1, nan, nan, 4, nan], [nan] * 6, [1, 2, 3, 4, 5, 6]]))
    np.testing.assert_array_equal(filled, [[1, 1, 1, 1, 4, 4], [0] * 6, [1, 2, 3, 4, 5, 6]])
    np.testing.assert_array_equal(ask(SeasonalNaive(2), [1, 2, 3, nan])[0, :2, 0], [3, 3])


def test_only_the_seasonal_naive_asks_for_a_season():
    assert isinstance(SeasonalNaive(), SeasonalForecaster)
    assert not isinstance(Naive(), SeasonalForecaster)
    assert SeasonalNaive().at_season(12) == SeasonalNaive(12)


def test_a_baseline_cannot_embed():
    with pytest.raises(ValueError, match="Drift has no hidden states"):
        Drift().embed([])
