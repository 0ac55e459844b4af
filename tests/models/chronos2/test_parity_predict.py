"""Forecasts and embeddings against Chronos2Pipeline: batching, unrolling, covariates, levels, cross learning."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from chronos2_parity import arrays, assert_quantiles, load

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos2.forecast import Chronos2Forecaster

CHECKPOINTS = [("c2a", 20, 150, 256), ("c2noreg", 11, 61, 120)]
"""Name, short and long horizon, context limit."""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def univariate(context: np.ndarray, horizon: int) -> ForecastInput:
    context = np.atleast_2d(context)
    return ForecastInput(context, np.full((len(context), horizon), np.nan, np.float32), num_targets=len(context))


def spread(x: ForecastInput) -> float:
    return float(np.nanstd(x.context_RC))


@pytest.mark.parametrize(("name", "short", "long", "limit"), CHECKPOINTS)
def test_lists_of_series(shared, name, short, long, limit):
    case, forecaster = arrays(shared, f"{name}_pipeline"), Chronos2Forecaster(load(shared, name))
    for suffix, horizon, batch_size in (("", short, 3), ("_long", long, 64)):
        inputs = [univariate(case[f"in_listA_{i}"], horizon) for i in range(5)]
        answers = forecaster.predict_quantiles(
            inputs, horizon, forecaster.quantile_levels, batch_size=batch_size, context_length=limit
        )
        for i, (x, answer) in enumerate(zip(inputs, answers, strict=True)):
            assert_quantiles(answer.transpose(0, 2, 1), case[f"out_listA{suffix}_{i}"], spread(x))


@pytest.mark.parametrize(("name", "short", "long", "limit"), CHECKPOINTS)
def test_variates_that_see_each_other(shared, name, short, long, limit):
    case, forecaster = arrays(shared, f"{name}_pipeline"), Chronos2Forecaster(load(shared, name))

    def answers(horizon, levels=forecaster.quantile_levels, **settings):
        inputs = [univariate(x, horizon) for x in case["in_B"]]
        return np.stack(forecaster.predict_quantiles(inputs, horizon, levels, **settings))

    scale = np.nanstd(case["in_B"], axis=-1)[..., None, None]
    assert_quantiles(answers(short).swapaxes(2, 3), case["out_B"], scale)
    assert_quantiles(answers(long).swapaxes(2, 3), case["out_B_long"], scale)
    assert_quantiles(answers(short, cross_learning=True).swapaxes(2, 3), case["out_B_crosslearning"], scale)
    levels = case["in_B_quantile_levels"].tolist()
    assert_quantiles(answers(short, levels), case["out_B_quantiles"], scale)
    assert_quantiles(answers(short, [0.5])[..., 0], case["out_B_mean"], scale[..., 0])


@pytest.mark.parametrize(("name", "short", "long", "limit"), CHECKPOINTS)
def test_covariates(shared, name, short, long, limit):
    case, forecaster = arrays(shared, f"{name}_covariates"), Chronos2Forecaster(load(shared, name))
    text = (shared / "oracles" / "chronos" / f"{name}_covariates.json").read_text()
    assert len(json.loads(text)["tasks"]) == len(case["prep_counts"])
    inputs = [
        ForecastInput(case[f"prep_context_{i}"], case[f"prep_future_{i}"], *map(int, counts))
        for i, counts in enumerate(case["prep_counts"])
    ]
    # The pack counts all covariates together, known-future ones among them.
    inputs = [ForecastInput(x.context_RC, x.future_RH, x.num_targets, x.num_past - x.num_future, x.num_future)
              for x in inputs]  # fmt: skip
    for suffix, horizon in (("long", long), ("small", short)):
        answers = forecaster.predict_quantiles(inputs, horizon, forecaster.quantile_levels)
        for i, (x, answer) in enumerate(zip(inputs, answers, strict=True)):
            assert_quantiles(answer.transpose(0, 2, 1), case[f"out_{suffix}_{i}"], spread(x))

    pairs = [ForecastInput(case[f"prep2_context_{i}"], case[f"prep2_future_{i}"], num_targets=2) for i in range(2)]
    answers = forecaster.predict_quantiles(pairs, short, forecaster.quantile_levels)
    for i, (x, answer) in enumerate(zip(pairs, answers, strict=True)):
        assert_quantiles(answer.transpose(0, 2, 1), case[f"out2_{i}"], spread(x))


@pytest.mark.parametrize(("name", "short", "long", "limit"), CHECKPOINTS)
def test_embeddings_of_observed_patches(shared, name, short, long, limit):
    case, model = arrays(shared, f"{name}_pipeline"), load(shared, name)
    patch = model.architecture.input_patch_size
    inputs = [univariate(x, 0) for x in case["in_B"]]
    embeddings = np.stack(Chronos2Forecaster(model).embed(inputs))
    observed = ~np.isnan(case["in_B"])
    observed = np.pad(observed, ((0, 0), (0, 0), (-observed.shape[-1] % patch, 0)))
    valid = observed.reshape(*observed.shape[:2], -1, patch).any(-1)
    always = np.ones((*valid.shape[:2], embeddings.shape[2] - valid.shape[2]), bool)
    valid = np.concatenate([valid, always], axis=-1)
    np.testing.assert_allclose(embeddings[valid], case["out_B_embed"][valid], rtol=1e-4, atol=1e-4)
