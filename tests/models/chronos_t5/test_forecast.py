"""Sampled forecasts: repeatable, independent of the batch, by experts, for odd contexts; sentences for bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.forecast.model import Model
from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from foreloom.models.chronos_t5.generate import Sampling, draws, sample_tokens
from foreloom.models.family import WindowLengths


def an_input(values, horizon: int = 16) -> ForecastInput:
    rows = np.atleast_2d(np.asarray(values, np.float32))
    return ForecastInput(rows, np.empty((len(rows), horizon), np.float32), num_targets=len(rows))


@pytest.fixture
def walks():
    rng = np.random.default_rng(0)
    return [an_input(rng.normal(size=length).cumsum()) for length in (96, 12, 50, 96, 3)]


def test_a_forecast_is_a_function_of_the_series_and_the_seed(tiny_chronos_t5, walks):
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    together = forecaster.predict(walks, 16)
    for order in ([0], [4, 2], [3, 1, 0]):
        for i, alone in zip(order, forecaster.predict([walks[i] for i in order], 16), strict=True):
            np.testing.assert_array_equal(alone, together[i])
    in_small_batches = forecaster.predict(walks, 16, batch_size=2)
    assert all(np.array_equal(a, b) for a, b in zip(in_small_batches, together, strict=True))
    other = forecaster.predict(walks, 16, seed=1)
    assert not any(np.array_equal(a, b) for a, b in zip(other, together, strict=True))


def test_the_scale_is_that_of_the_context_alone(tiny_chronos_t5):
    rng = np.random.default_rng(0)
    inputs = [an_input(rng.normal(size=length).cumsum()) for length in rng.integers(5, 90, 60)]
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    together, alone = (forecaster.predict(inputs, 2, num_samples=1, batch_size=size) for size in (60, 1))
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_long_horizons_go_on_from_the_median_of_the_samples(tiny_chronos_t5, walks):
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    long, short = forecaster.predict(walks[:1], 40), forecaster.predict(walks[:1], 16)
    assert long[0].shape == (1, 6, 40)
    np.testing.assert_array_equal(long[0][..., :16], short[0])
    # One sample is its own median: then the rest is what the model says after that path.
    single = forecaster.predict(walks[1:2], 32, num_samples=1, top_k=1)[0][0, 0]
    extended = an_input(np.concatenate([walks[1].context_RC[0], single[:16]]))
    np.testing.assert_allclose(forecaster.predict([extended], 16, num_samples=1, top_k=1)[0][0, 0], single[16:])


def test_quantiles_are_those_of_the_samples(tiny_chronos_t5, walks):
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    levels = [0.1, 0.25, 0.5, 0.9]
    samples = forecaster.predict(walks, 20)
    for quantiles, paths in zip(forecaster.predict_quantiles(walks, 20, levels), samples, strict=True):
        assert quantiles.shape == (1, 20, 4) and quantiles.dtype == np.float32
        expected = torch.quantile(torch.from_numpy(paths), torch.tensor(levels), dim=1).permute(1, 2, 0)
        np.testing.assert_allclose(quantiles, expected, rtol=1e-5, atol=1e-6)
        assert (np.diff(quantiles, axis=-1) >= 0).all()


@pytest.mark.parametrize(
    "values",
    [[np.nan] * 8, [3.0] * 20, [0.0] * 5, [7.5], [np.nan, 2.0], [1e30, -1e30, 5e29], [1e-30, 2e-30],
     [np.inf, 1.0, 2.0], [[1.0, 2.0, np.nan], [np.nan] * 3]],
)  # fmt: skip
def test_odd_contexts_have_finite_forecasts(tiny_chronos_t5, values):
    (answer,) = ChronosT5Forecaster(tiny_chronos_t5).predict_quantiles([an_input(values)], 20, [0.1, 0.5, 0.9])
    assert answer.shape[1:] == (20, 3) and np.isfinite(answer).all()


def test_missing_steps_before_a_series_change_nothing(tiny_chronos_t5):
    values = np.random.default_rng(0).normal(size=30)
    padded = np.concatenate([np.full(20, np.nan), values])
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    for ask in (forecaster.predict, forecaster.embed):
        short, long = (ask([an_input(x)])[0] for x in (values, padded))
        np.testing.assert_allclose(short, long, atol=1e-5)


def test_covariates_are_passed_over_and_every_target_is_forecast_alone(tiny_chronos_t5):
    rng = np.random.default_rng(0)
    rows, future = rng.normal(size=(4, 30)).astype(np.float32), rng.normal(size=(4, 8)).astype(np.float32)
    group = ForecastInput(rows, future, num_targets=2, num_past=1, num_future=1)
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    (both,) = forecaster.predict([group], 8)
    assert both.shape == (2, 6, 8)
    for row in range(2):
        np.testing.assert_array_equal(both[row], forecaster.predict([an_input(rows[row])], 8)[0][0])


def test_forecasts_really_come_from_the_experts(tiny_chronos_t5, walks):
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    before, info = forecaster.predict_with_routing_info(walks, 16, num_samples=4)
    assert info.router_probs.shape == (5, 4) and info.expert_indices.shape == info.top_k_probs.shape == (5, 2)
    assert (info.num_experts, info.num_active_experts) == (4, 2)
    np.testing.assert_allclose(info.router_probs.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(info.top_k_probs.sum(1), 1, rtol=1e-5)
    swapped = info.expert_indices[0, 0]
    with torch.no_grad():
        tiny_chronos_t5.moe.experts.head_weight[swapped].neg_()
    after = forecaster.predict(walks, 16, num_samples=4)
    for row in range(5):
        changed = not np.array_equal(before[row], after[row])
        assert changed == (swapped in info.expert_indices[row])


def test_usage_is_counted_over_calls_and_reset(tiny_chronos_t5, walks):
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    _, info = forecaster.predict_with_routing_info(walks, 16)
    forecaster.predict(walks[:2], 40)
    chosen = np.concatenate([info.expert_indices, info.expert_indices[:2]])
    statistics = forecaster.usage.statistics()
    assert statistics.num_samples == 7
    assert list(statistics.counts) == np.bincount(chosen.ravel(), minlength=4).tolist()
    assert sum(statistics.shares) == pytest.approx(1) and 0 <= statistics.entropy <= 1
    forecaster.usage.reset()
    assert forecaster.usage.statistics().counts == (0, 0, 0, 0)


def test_a_reloaded_model_gives_the_same_samples(tiny_chronos_t5, walks, tmp_path):
    FAMILY.save(tiny_chronos_t5, tiny_chronos_t5.state_dict(), tmp_path)
    again = ChronosT5Forecaster(FAMILY.load(tmp_path))
    for a, b in zip(ChronosT5Forecaster(tiny_chronos_t5).predict(walks, 20), again.predict(walks, 20), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_door_for_users(tiny_chronos_t5):
    import pandas as pd

    model = Model(FAMILY, tiny_chronos_t5)
    days = pd.date_range("2024-01-01", periods=40, freq="D")
    values = {"a": np.arange(40.0), "b": 9 * np.arange(40.0)}
    table = pd.concat(
        [pd.DataFrame({"item_id": name, "timestamp": days, "target": target}) for name, target in values.items()]
    )
    forecast = model.predict_df(table, prediction_length=10, quantile_levels=[0.1, 0.5, 0.9])
    assert list(forecast.columns) == ["item_id", "timestamp", "target_name", "predictions", "0.1", "0.5", "0.9"]
    assert len(forecast) == 20 and forecast["timestamp"].min() == pd.Timestamp("2024-02-10")
    with pytest.warns(UserWarning, match="beyond the 16 steps the model gives at once"):
        model.predict(np.arange(40.0), prediction_length=17)
    with pytest.raises(ValueError, match="cross_learning: Chronos-T5 forecasts each series on its own"):
        model.predict(np.arange(40.0), cross_learning=True)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_forecast_that_is_not_finite_is_told_of(tiny_chronos_t5):
    model = Model(FAMILY, tiny_chronos_t5)
    with pytest.warns(UserWarning, match="1 of 2 forecasts are not finite, the first that of input 1"):
        model.predict([np.arange(40.0), np.full(40, 3e38)], prediction_length=8)


def test_tokens_are_drawn_by_temperature_top_k_and_top_p():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).expand(20000, 4)
    draw = torch.rand(20000, generator=torch.Generator().manual_seed(0))

    def shares(temperature=1.0, top_k=0, top_p=1.0, excluded=None):
        sampling = Sampling(1, temperature, top_k, top_p)
        return torch.bincount(sample_tokens(logits, draw, sampling, excluded), minlength=4) / 20000

    near = lambda expected: pytest.approx(expected, abs=0.015)
    assert shares().tolist() == near([0.5, 0.3, 0.15, 0.05])
    assert shares(top_k=2).tolist() == near([0.625, 0.375, 0, 0])
    assert shares(top_k=1).tolist() == [1, 0, 0, 0]
    assert shares(top_p=0.79).tolist() == near([0.625, 0.375, 0, 0])
    assert shares(top_p=0.01).tolist() == [1, 0, 0, 0]
    assert shares(excluded=0).tolist() == near([0, 0.6, 0.3, 0.1])
    square = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    assert shares(temperature=0.5).tolist() == near((square / square.sum()).tolist())
    ends = sample_tokens(logits[:2], torch.tensor([0.0, 1.0 - 2**-24]), Sampling(1, 1.0, 0, 0.9), None)
    assert ends.tolist() == [0, 2]


def test_draws_are_uniform_and_those_of_their_series():
    contexts = [np.arange(5, dtype=np.float32), np.arange(6, dtype=np.float32)]
    both = draws(contexts, 50, 0, 64, seed=0)
    np.testing.assert_array_equal(draws(contexts[1:], 50, 0, 64, seed=0)[0], both[1])
    np.testing.assert_array_equal(draws(contexts, 50, 32, 32, seed=0), both[..., 32:])
    assert not np.isin(both[0], both[1]).any() and abs(both.mean() - 0.5) < 0.02
    assert len(np.unique(both)) == both.size


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0; top_k=1 is the likeliest token"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 1.5}, "top_p must lie above 0 and up to 1"),
        ({"context_length": 97}, "context_length is 97; this model takes 1 to 96"),
    ],
)
def test_bad_options_get_a_sentence(tiny_chronos_t5, walks, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        ChronosT5Forecaster(tiny_chronos_t5).predict(walks, 16, **change)


def test_nothing_asked_is_nothing_answered(tiny_chronos_t5):
    forecaster = ChronosT5Forecaster(tiny_chronos_t5)
    assert forecaster.predict([], 4) == [] and forecaster.predict_quantiles([], 4, [0.5]) == []
    with pytest.raises(ValueError, match="no series to route"):
        forecaster.predict_with_routing_info([], 4)


def test_many_samples_are_drawn_in_several_batches_alike(tiny_chronos_t5, walks, monkeypatch):
    together = ChronosT5Forecaster(tiny_chronos_t5).predict(walks, 4, num_samples=50)
    monkeypatch.setattr("foreloom.models.chronos_t5.forecast.MOST_LOGITS", 2 * 50 * 64)
    for a, b in zip(together, ChronosT5Forecaster(tiny_chronos_t5).predict(walks, 4, num_samples=50), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_without_experts_has_no_routing_to_tell_of(tiny_chronos_t5, walks):
    from foreloom.models.chronos_t5.architecture import ChronosT5Config

    model = FAMILY.build(ChronosT5Config(size="tiny", d_model=16, n_tokens=64), WindowLengths(20, 4))
    FAMILY.initialize(model, 0)
    forecaster = ChronosT5Forecaster(model.eval())
    assert forecaster.usage is None
    with pytest.raises(ValueError, match="no experts"):
        forecaster.predict_with_routing_info(walks[1:2], 4)
    with pytest.raises(ValueError, match="a context has 96 steps and the model looks at 20 at most"):
        forecaster.predict(walks[:1], 4)
