"""The forecaster's own rules: limits, levels, batches, the module left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_bolt.architecture import ChronosBoltConfig
from foreloom.models.chronos_bolt.family import FAMILY
from foreloom.models.chronos_bolt.forecast import ChronosBoltForecaster
from foreloom.models.family import WindowLengths


def forecaster(**fields) -> ChronosBoltForecaster:
    small = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "initializer_factor": 1.0}
    model = FAMILY.build(ChronosBoltConfig(**(small | fields)), WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return ChronosBoltForecaster(model)


def inputs(*lengths: int) -> list[ForecastInput]:
    rng = np.random.default_rng(0)
    unknown = np.full((1, 16), np.nan, np.float32)
    return [
        ForecastInput(rng.normal(size=(1, n)).cumsum(1).astype(np.float32), unknown, num_targets=1) for n in lengths
    ]


def test_a_context_beyond_the_limit_must_be_cut_on_purpose():
    model = forecaster()
    for ask in (lambda: model.predict_quantiles(inputs(40, 120), 16, [0.5]), lambda: model.embed(inputs(120))):
        with pytest.raises(ValueError, match="has 120 steps and the model looks at 96.*pass context_length=96"):
            ask()
    with pytest.raises(ValueError, match="context_length is 97; this model takes 1 to 96"):
        model.predict_quantiles(inputs(40), 16, [0.5], context_length=97)
    (whole,) = model.predict_quantiles(inputs(120), 16, [0.5], context_length=50)
    cut = ForecastInput(inputs(120)[0].context_RC[:, -50:], inputs(120)[0].future_RH, num_targets=1)
    np.testing.assert_array_equal(whole, model.predict_quantiles([cut], 16, [0.5])[0])


def test_cross_learning_is_refused():
    with pytest.raises(ValueError, match="cross_learning: Chronos-Bolt forecasts each series on its own"):
        forecaster().predict_quantiles(inputs(40), 16, [0.5], cross_learning=True)


def test_levels_that_do_not_stand_at_equal_distances():
    model = forecaster(quantiles=(0.2, 0.9))
    ((own,),) = model.predict_quantiles(inputs(50), 16, [0.2, 0.9])
    ((answer,),) = model.predict_quantiles(inputs(50), 16, [0.01, 0.2, 0.5, 0.99])
    assert (np.diff(answer) >= 0).all(), "sorted"
    low, high = own[own[:, 0] <= own[:, 1]].T
    assert 3 < len(low) < 16, "some levels cross"
    middle = low + (0.5 - 0.2) / (0.9 - 0.2) * (high - low)
    expected = np.stack([low, low, middle, high], axis=-1)
    np.testing.assert_allclose(answer[own[:, 0] <= own[:, 1]], expected, rtol=1e-4, atol=1e-5)
    assert model.predict_quantiles(inputs(50), 100, [0.2])[0].shape == (1, 100, 1)


def test_a_lone_level_is_unrolled_along_itself():
    model = forecaster(quantiles=(0.5,))
    (series,) = inputs(50)
    (long,) = model.predict_quantiles([series], 60, [0.5])
    (first,) = model.predict_quantiles([series], 32, [0.5])
    grown = np.concatenate([series.context_RC, first[..., 0]], 1)
    (second,) = model.predict_quantiles([ForecastInput(grown, series.future_RH, num_targets=1)], 28, [0.5])
    np.testing.assert_allclose(long, np.concatenate([first, second], 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("horizon", [20, 70])
def test_answers_do_not_depend_on_batches(horizon, monkeypatch):
    model, series = forecaster(), inputs(5, 96, 33, 16, 70)
    nothing = ForecastInput(np.full((2, 20), np.nan, np.float32), np.full((2, 0), np.nan), num_targets=2)
    series = [*series, nothing]
    together = model.predict_quantiles(series, horizon, [0.1, 0.5])
    assert all(np.isfinite(answer).all() for answer in together) and together[-1].shape == (2, horizon, 2)
    for batch_size in (1, 2):
        apart = model.predict_quantiles(series, horizon, [0.1, 0.5], batch_size=batch_size)
        for a, b in zip(together, apart, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(ChronosBoltForecaster, "max_steps", 100)
    for a, b in zip(together, model.predict_quantiles(series, horizon, [0.1, 0.5]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_covariates_are_passed_over():
    (target,) = inputs(50)
    both = ForecastInput(
        np.concatenate([target.context_RC, np.ones((2, 50), np.float32)]), np.ones((3, 16), np.float32), 1, 1, 1
    )
    alone, beside = (forecaster().predict_quantiles([x], 16, [0.5])[0] for x in (target, both))
    np.testing.assert_array_equal(alone, beside)


def test_the_module_goes_back_to_training():
    model = forecaster()
    model.module.train()
    first = model.predict_quantiles(inputs(50), 16, [0.5])[0]
    assert model.module.training
    np.testing.assert_array_equal(first, model.predict_quantiles(inputs(50), 16, [0.5])[0])


def test_embeddings_have_a_row_a_target_and_a_token_a_patch():
    values = torch.randn(2, 50).numpy()
    values[1, :20] = np.nan
    two = ForecastInput(values, np.full((2, 0), np.nan, np.float32), num_targets=2)
    model = forecaster()
    first, second = model.embed([two, *inputs(20)])
    assert first.shape == (2, 4 + 1, 32) and second.shape == (1, 2 + 1, 32)
    assert (first[1, :2] == 0).all() and (first[1, 2:] != 0).all()
    late = ForecastInput(values[1:, 20:], two.future_RH[1:], num_targets=1)
    np.testing.assert_allclose(model.embed([late])[0][0], first[1, 2:], rtol=1e-4, atol=1e-5)
