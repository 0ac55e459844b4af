"""The forecaster's own rules: limits, levels, batches, the module left as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.chronos2.forecast import Chronos2Forecaster
from foreloom.models.common.rows import batches
from foreloom.models.family import WindowLengths

TINY = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64}


def forecaster(**fields) -> Chronos2Forecaster:
    config = Chronos2Config(**(TINY | {"initializer_factor": 1.0} | fields))
    model = FAMILY.build(config, WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return Chronos2Forecaster(model)


def inputs(*lengths: int) -> list[ForecastInput]:
    rng = np.random.default_rng(0)
    unknown = np.full((1, 16), np.nan, np.float32)
    return [
        ForecastInput(rng.normal(size=(1, n)).cumsum(1).astype(np.float32), unknown, num_targets=1) for n in lengths
    ]


def test_a_context_beyond_the_limit_must_be_cut_on_purpose():
    model = forecaster()
    with pytest.raises(ValueError, match="has 120 steps and the model looks at 96.*pass context_length=96"):
        model.predict_quantiles(inputs(40, 120), 16, [0.5])
    with pytest.raises(ValueError, match="context_length is 97; this model takes 1 to 96"):
        model.predict_quantiles(inputs(40), 16, [0.5], context_length=97)
    (whole,) = model.predict_quantiles(inputs(120), 16, [0.5], context_length=50)
    cut = ForecastInput(inputs(120)[0].context_RC[:, -50:], inputs(120)[0].future_RH, num_targets=1)
    np.testing.assert_array_equal(whole, model.predict_quantiles([cut], 16, [0.5])[0])


def test_without_group_attention_every_target_stands_alone(tmp_path):
    grouped, alone = forecaster(), forecaster(group_attention=False)
    rng = np.random.default_rng(1)
    context = rng.normal(size=(4, 60)).cumsum(1).astype(np.float32)
    future = np.full((4, 40), np.nan, np.float32)
    future[3] = rng.normal(size=40)
    together = ForecastInput(context, future, num_targets=2, num_past=1, num_future=1)
    apart = [ForecastInput(context[[row]], future[[0]], num_targets=1) for row in range(2)]
    one_by_one = np.concatenate(grouped.predict_quantiles(apart, 40, [0.1, 0.5]))  # the horizon is unrolled
    np.testing.assert_allclose(alone.predict_quantiles([together], 40, [0.1, 0.5])[0], one_by_one, rtol=1e-5)
    assert not np.allclose(grouped.predict_quantiles([together], 40, [0.1, 0.5])[0], one_by_one, rtol=1e-2)
    with pytest.raises(ValueError, match="forecasts each series on its own"):
        alone.predict_quantiles(apart, 40, [0.5], cross_learning=True)

    tensors = torch.from_numpy(context)
    alone.module.eval()
    of_group = alone.module(tensors, group_ids=torch.zeros(4), num_output_patches=2).quantile_preds
    torch.testing.assert_close(of_group, alone.module(tensors, num_output_patches=2).quantile_preds)
    for model, said in ((alone, False), (grouped, None)):
        FAMILY.save(model.module, model.module.state_dict(), tmp_path)
        nested = json.loads((tmp_path / "config.json").read_text())["chronos_config"]
        assert nested.get("group_attention") is said, "published models have no such key"
        assert FAMILY.load(tmp_path).architecture.group_attention is (said is None)


def test_quantile_sets_without_deciles():
    model = forecaster(quantiles=(0.02, 0.33, 0.98))
    (answer,) = model.predict_quantiles(inputs(50), 16, [0.02, 0.33, 0.5, 0.98])
    _, third, middle, high = np.moveaxis(answer[0], -1, 0)
    np.testing.assert_allclose(middle, third + (0.5 - 0.33) / (0.98 - 0.33) * (high - third), rtol=1e-4)
    assert model.predict_quantiles(inputs(50), 100, [0.33])[0].shape == (1, 100, 1)
    extremes = forecaster(quantiles=(0.02, 0.98))
    assert extremes.predict_quantiles(inputs(50), 32, [0.02])[0].shape == (1, 32, 1)
    with pytest.raises(ValueError, match="needs unrolling, and none of the model's levels"):
        extremes.predict_quantiles(inputs(50), 33, [0.02])


def test_paths_of_chosen_levels_are_followed():
    model = forecaster()
    levels = model.quantile_levels
    (given,) = inputs(50)
    whole = model.predict_quantiles([given], 64, levels, unrolled_quantiles=[0.5])[0][0]
    (first,) = model.predict_quantiles([given], 32, levels)
    np.testing.assert_allclose(whole[:32], first[0], rtol=1e-5)
    # One path: the median goes on, and what is forecast from there counts by the mass of its level.
    context = np.concatenate([given.context_RC[0], first[0, :, levels.index(0.5)]])[None, -96:]
    (then,) = model.predict_quantiles([ForecastInput(context, given.future_RH, num_targets=1)], 32, levels)
    edges = np.array([0, *levels, 1])
    mass = (edges[2:] - edges[:-2]) / 2
    for step, values in enumerate(then[0]):
        order = values.argsort()
        expected = np.interp(levels, (mass / mass.sum())[order].cumsum(), values[order])
        np.testing.assert_allclose(whole[32 + step], expected, rtol=1e-3, atol=1e-4)
    deciles = model.predict_quantiles([given], 64, levels)[0][0]
    assert np.abs(deciles[32:] - whole[32:]).max() > 1e-3
    with pytest.raises(ValueError, match=r"unrolled_quantiles \[0.33\]: paths are followed at levels of the model"):
        model.predict_quantiles([given], 64, [0.5], unrolled_quantiles=[0.33])


def test_levels_beyond_the_outermost_are_flat():
    model = forecaster(quantiles=(0.2, 0.5, 0.8))
    (answer,) = model.predict_quantiles(inputs(50), 16, [0.01, 0.2, 0.8, 0.99])
    np.testing.assert_array_equal(answer[..., 0], answer[..., 1])
    np.testing.assert_array_equal(answer[..., 3], answer[..., 2])


def test_answers_do_not_depend_on_batches():
    model, series = forecaster(), inputs(5, 96, 33, 16, 70)
    together = model.predict_quantiles(series, 40, [0.1, 0.5])
    for batch_size in (1, 2):
        apart = model.predict_quantiles(series, 40, [0.1, 0.5], batch_size=batch_size)
        for a, b in zip(together, apart, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_batches_keep_an_inputs_rows_together():
    assert list(batches([1, 3, 2, 1, 1], 4)) == [slice(0, 2), slice(2, 5)]
    assert list(batches([9, 1], 4)) == [slice(0, 1), slice(1, 2)]
    assert list(batches([], 4)) == []


def test_the_module_goes_back_to_training():
    model = forecaster()
    model.module.train()
    first = model.predict_quantiles(inputs(50), 16, [0.5])[0]
    assert model.module.training
    np.testing.assert_array_equal(first, model.predict_quantiles(inputs(50), 16, [0.5])[0])


def test_a_series_without_values_is_forecast_by_its_mean_zero():
    nothing = ForecastInput(np.full((1, 20), np.nan, np.float32), np.full((1, 16), np.nan, np.float32), num_targets=1)
    (answer,) = forecaster().predict_quantiles([nothing], 16, [0.5])
    assert np.isfinite(answer).all()


def test_embeddings_have_a_row_a_variate_and_a_token_a_patch():
    two = ForecastInput(torch.randn(2, 50).numpy(), np.full((2, 0), np.nan, np.float32), num_targets=2)
    first, second = forecaster().embed([two, *inputs(20)])
    assert first.shape == (2, 4 + 1 + 1, 32) and second.shape == (1, 6, 32)
