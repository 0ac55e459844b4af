"""chronos-forecasting's pipelines as forecasters: what they answer is what the package answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.adapters.chronos import ChronosPipeline

LEVELS = [0.1, 0.5, 0.9]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def chronos():
    return pytest.importorskip("chronos")


def inputs() -> list[ForecastInput]:
    """Two targets of 30 steps with a gap, then one of 50 with a covariate known ahead."""
    rng = np.random.default_rng(0)
    two, one = rng.normal(size=(2, 30)).astype(np.float32), rng.normal(size=(2, 50)).astype(np.float32)
    two[0, 7] = np.nan
    ahead = np.full((2, 4), np.nan, np.float32)
    ahead[1] = [1, 2, 3, 4]
    return [ForecastInput(two, np.full((2, 4), np.nan, np.float32), 2), ForecastInput(one, ahead, 1, 0, 1)]


def test_bolt_answers_each_target_alone(shared):
    forecaster = ChronosPipeline.load(shared / "data/fixtures/dummy-chronos-bolt-model", CPU)
    two, one = forecaster.predict_quantiles(inputs(), 4, LEVELS)
    assert (two.shape, one.shape) == ((2, 4, 3), (1, 4, 3))
    rows = [torch.from_numpy(row) for row in (*inputs()[0].context_RC, inputs()[1].context_RC[0])]
    wanted, _ = forecaster.pipeline.predict_quantiles(rows, 4, LEVELS)
    np.testing.assert_allclose(np.concatenate([two, one]), wanted.numpy(), atol=1e-6)
    newest = forecaster.predict_quantiles(inputs()[1:], 4, LEVELS, context_length=20)[0]
    wanted, _ = forecaster.pipeline.predict_quantiles([rows[2][-20:]], 4, LEVELS)
    np.testing.assert_allclose(newest, wanted.numpy(), atol=1e-6)


def test_samples_repeat(shared):
    forecaster = ChronosPipeline.load(shared / "data/fixtures/dummy-chronos-model", CPU)
    first = forecaster.predict_quantiles(inputs(), 4, LEVELS)
    state = torch.random.get_rng_state()
    again = forecaster.predict_quantiles(inputs(), 4, LEVELS)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


def test_chronos2_takes_covariates_and_equals_our_own(shared):
    from foreloom.forecast import from_pretrained

    folder = shared / "data/fixtures/dummy-chronos2-model"
    theirs = ChronosPipeline.load(folder, CPU)
    ours = from_pretrained(folder, device="cpu").forecaster
    asked = inputs()
    for their, our in zip(
        theirs.predict_quantiles(asked, 4, LEVELS), ours.predict_quantiles(asked, 4, LEVELS), strict=True
    ):
        np.testing.assert_allclose(their, our, rtol=1e-4, atol=1e-4)
    without = theirs.predict_quantiles([ForecastInput(asked[1].context_RC[:1], asked[1].future_RH[:1], 1)], 4, LEVELS)
    assert not np.allclose(without[0], theirs.predict_quantiles(asked[1:], 4, LEVELS)[0])


def test_a_folder_that_it_cannot_load(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="chronos-forecasting cannot load it"):
        ChronosPipeline.load(tmp_path, CPU)
