"""Classical models: quantiles are the ends of their intervals, and a failed fit is answered and counted."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import numpy as np
import pytest

from foreloom.data.forecast_input import ForecastInput
from foreloom.data.source import MemorySource, Series
from foreloom.evaluation.adapters.statistical import StatisticalForecaster
from foreloom.evaluation.baselines import SeasonalForecaster, num_fallbacks
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.sliding import raw_task
from foreloom.evaluation.tasks import EvaluationTask


class Fragile:
    """Fails on a past that begins with 0, gives what is not finite for one that begins with 1."""

    def __init__(self, season_length: int) -> None:
        self.season_length = season_length

    def forecast(self, y, h, level=None):
        if y[0] == 0:
            raise Exception("no model able to be fitted")
        mean = np.full(h, np.nan if y[0] == 1 else y[-1])
        return {
            "mean": mean,
            **{f"lo-{l}": mean - l for l in level or ()},
            **{f"hi-{l}": mean + l for l in level or ()},
        }


@pytest.fixture
def fragile(monkeypatch):
    package, models = ModuleType("statsforecast"), ModuleType("statsforecast.models")
    models.Fragile = Fragile
    monkeypatch.setitem(sys.modules, "statsforecast", package)
    monkeypatch.setitem(sys.modules, "statsforecast.models", models)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: package)
    return StatisticalForecaster("Fragile")


def past(*values: float) -> ForecastInput:
    context = np.array([values], np.float32)
    return ForecastInput(context, np.full((1, 2), np.nan, np.float32), 1)


def test_levels_are_ends_of_intervals_and_failures_are_seasonal_naive(fragile):
    fine, failed, broken = fragile.at_season(2).predict_quantiles(
        [past(5, 6, 7), past(0, 6, 8), past(1, 3, 4)], 3, [0.025, 0.1, 0.5, 0.9]
    )
    assert fine[0, 0].tolist() == [7 - 95, 7 - 80, 7, 7 + 80]
    assert failed[0, :, 1].tolist() == [6, 8, 6]
    assert broken[0, :, 3].tolist() == [3, 4, 3]
    assert num_fallbacks(fragile) == 2, "copies for other seasons count together"
    assert isinstance(fragile, SeasonalForecaster)


def test_fallbacks_are_counted_once_a_forecast(fragile, tmp_path):
    data = tmp_path / "a.jsonl"
    series = [[0.0, 1, 2, 3, 4, 5], [0.0, 2, 2, 3, 4, 5], [7.0, 8, 9, 8, 7, 9]]
    data.write_text("".join(json.dumps({"target": values}) + "\n" for values in series))
    task = EvaluationTask(name="a", path=data, prediction_length=2)
    (result,) = evaluate(fragile, [task], batch_size=1).tasks
    assert result.num_fallbacks == 2, "the pictures' windows are not counted again"
    every_window = raw_task(MemorySource([Series("c", np.array([series[0]], np.float32))]), 1, 3)
    (result,) = evaluate(fragile, [every_window]).tasks
    assert result.num_fallbacks == 2, "of three contexts one begins with 0 and one with 1"


def test_the_package_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"AutoETS is of the package statsforecast.*pip install 'foreloom\[statist"):
        StatisticalForecaster("AutoETS")


@pytest.mark.parametrize("method", ["AutoETS", "AutoTheta", "AutoARIMA"])
def test_the_packages_own_models(method):
    pytest.importorskip("statsforecast")
    t = np.arange(72)
    noise = np.random.default_rng(0).normal(0, 0.3, 72)
    values = (20 + 5 * np.sin(t * 2 * np.pi / 12) + noise).astype(np.float32)
    forecaster = StatisticalForecaster(method).at_season(12)
    (answer,) = forecaster.predict_quantiles([past(*values[:60])], 12, [0.1, 0.5, 0.9])
    assert num_fallbacks(forecaster) == 0
    assert (np.diff(answer[0], axis=-1) > 0).all(), "levels do not cross"
    np.testing.assert_allclose(answer[0, :, 1], values[60:], atol=2.5)
