"""The forecaster: scaling, missing values, lengths, batches."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import foreloom
from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos2.family import FAMILY as CHRONOS2
from foreloom.models.time_moe.family import FAMILY
from foreloom.models.time_moe.forecast import TimeMoeForecaster
from foreloom.models.time_moe.generate import generate


def inputs_of(*contexts: np.ndarray, horizon: int = 12) -> list[ForecastInput]:
    arrays = [np.atleast_2d(np.asarray(context, np.float32)) for context in contexts]
    return [ForecastInput(x, np.full((len(x), horizon), np.nan, np.float32), num_targets=len(x)) for x in arrays]


@pytest.fixture
def series() -> np.ndarray:
    return np.random.default_rng(0).normal(size=60).cumsum() * 7 + 100


def test_a_forecast_is_what_the_readme_of_the_original_computes(tiny_time_moe, series):
    (ours,) = FAMILY.forecaster(tiny_time_moe).predict_quantiles(inputs_of(series), 12, [0.5])
    context = torch.from_numpy(series)[None].float()
    mean, std = context.mean(-1, keepdim=True), context.std(-1, keepdim=True)
    theirs = tiny_time_moe.generate((context - mean) / std, max_new_tokens=12)[:, -12:] * std + mean
    assert ours.shape == (1, 12, 1)
    np.testing.assert_allclose(ours[..., 0], theirs, rtol=1e-5)


def test_every_level_gets_the_one_forecast(tiny_time_moe, series):
    (ours,) = FAMILY.forecaster(tiny_time_moe).predict_quantiles(inputs_of(series), 5, [0.1, 0.5, 0.9])
    assert ours.shape == (1, 5, 3) and (ours == ours[..., :1]).all()


def test_scale_and_shift(tiny_time_moe, series):
    forecaster = FAMILY.forecaster(tiny_time_moe)
    plain, moved = forecaster.predict_quantiles(inputs_of(series, 3 * series - 500), 12, [0.5])
    np.testing.assert_allclose(moved, 3 * plain - 500, rtol=1e-4)
    scaled = forecaster.on_scaled_data()
    raw, raw_moved = scaled.predict_quantiles(inputs_of(series / 50, series / 50 + 1), 12, [0.5])
    assert np.abs(raw_moved - raw - 1).max() > 1e-2, "nothing is normalised on scaled data"
    context = torch.from_numpy(series / 50)[None].float()
    np.testing.assert_allclose(raw[..., 0], tiny_time_moe.generate(context, 12)[:, -12:], rtol=1e-5)


def test_ragged_rows_in_any_batches(tiny_time_moe, series, monkeypatch):
    forecaster = FAMILY.forecaster(tiny_time_moe)
    two = np.stack([series[:40], series[20:]])
    two[1, :15] = np.nan
    given = inputs_of(series, series[:7], two, series[5:45], [3.0])
    alone = [forecaster.predict_quantiles([one], 12, [0.5])[0] for one in given]
    for batch_size, most_steps in ((256, 65536), (2, 65536), (256, 60)):
        monkeypatch.setattr(TimeMoeForecaster, "max_steps", most_steps)
        together = forecaster.predict_quantiles(given, 12, [0.5], batch_size=batch_size)
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)
    assert [len(answer) for answer in alone] == [1, 1, 2, 1, 1]
    assert forecaster.predict_quantiles([], 12, [0.5]) == []


def test_missing_values_repeat_the_last_one_and_leading_ones_are_dropped(tiny_time_moe, series):
    forecaster = FAMILY.forecaster(tiny_time_moe).on_scaled_data()
    holes = series / 100
    holes[:9] = np.nan
    holes[30:33] = np.nan
    filled = holes[9:].copy()
    filled[21:24] = filled[20]
    ours, theirs = forecaster.predict_quantiles(inputs_of(holes, filled), 12, [0.5])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_context_beyond_the_maximum_is_cut_with_a_word_or_taken_whole(tiny_time_moe):
    long = np.random.default_rng(1).normal(size=140).cumsum()
    forecaster = FAMILY.forecaster(tiny_time_moe)
    with pytest.warns(UserWarning, match="context of 140 steps is cut to its newest 116: with 12 to forecast"):
        (cut,) = forecaster.predict_quantiles(inputs_of(long), 12, [0.5])
    (newest,) = forecaster.predict_quantiles(inputs_of(long[-116:]), 12, [0.5])
    np.testing.assert_array_equal(cut, newest)
    with pytest.raises(ValueError, match="context_length 118 and prediction_length 12 are 130 steps"):
        forecaster.predict_quantiles(inputs_of(long), 12, [0.5], context_length=118)
    tiny_time_moe.protocol = "reference"
    (whole,) = forecaster.predict_quantiles(inputs_of(long), 12, [0.5])
    scaled = torch.from_numpy((long - long.mean()) / long.std(ddof=1))[None].float()
    theirs = generate(tiny_time_moe, scaled, 12)[:, -12:].numpy() * long.std(ddof=1) + long.mean()
    np.testing.assert_allclose(whole[..., 0], theirs, rtol=1e-4)


def test_the_official_way_beyond_the_maximum_is_an_option_of_the_door(tiny_time_moe, tiny_chronos2, tmp_path):
    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path / "moe")
    long = np.random.default_rng(1).normal(size=140).cumsum()
    with pytest.warns(UserWarning, match=r"from_pretrained\(\.\.\., protocol=\"reference\"\) goes beyond"):
        (cut,) = foreloom.from_pretrained(tmp_path / "moe", device="cpu").predict(long, 12)
    official = foreloom.from_pretrained(tmp_path / "moe", device="cpu", protocol="reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (whole,) = official.predict(long, 12)
    scaled = torch.from_numpy((long - long.mean()) / long.std(ddof=1))[None].float()
    theirs = official.module.generate(scaled, 12)[:, -12:].numpy() * long.std(ddof=1) + long.mean()
    np.testing.assert_allclose(whole[..., 0], theirs, rtol=1e-4)
    assert not np.allclose(whole, cut)
    with pytest.raises(ValueError, match="protocol 'other': choose one of standard, reference"):
        foreloom.from_pretrained(tmp_path / "moe", device="cpu", protocol="other")
    CHRONOS2.save(tiny_chronos2, tiny_chronos2.state_dict(), tmp_path / "chronos2")
    with pytest.raises(ValueError, match="protocol: chronos2 has one only; leave it out"):
        foreloom.from_pretrained(tmp_path / "chronos2", device="cpu", protocol="reference")


def test_constant_and_empty_rows(tiny_time_moe):
    forecaster = FAMILY.forecaster(tiny_time_moe)
    five, one, nothing = forecaster.predict_quantiles(inputs_of(np.full(30, 5.0), [5.0], np.full(4, np.nan)), 12, [0.5])
    zeros = tiny_time_moe.generate(torch.zeros(1, 30), 12)[:, -12:].numpy()
    np.testing.assert_allclose(five[..., 0], 5 + zeros, rtol=1e-5)
    assert np.isfinite(one).all() and np.isfinite(nothing).all()


def test_covariates_are_passed_over(tiny_time_moe, series):
    (plain,) = inputs_of(series)
    rows = np.stack([series, 9 * series]).astype(np.float32)
    other = ForecastInput(rows, np.zeros((2, 12), np.float32), num_targets=1, num_future=1)
    ours, theirs = FAMILY.forecaster(tiny_time_moe).predict_quantiles([plain, other], 12, [0.5])
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_context_and_forecast_share_the_maximum(tiny_time_moe):
    forecaster = FAMILY.forecaster(tiny_time_moe)
    assert (forecaster.context_length, forecaster.prediction_length) == (120, 8)
    long = np.random.default_rng(1).normal(size=300)
    newest = inputs_of(long[-98:])
    (expected,) = forecaster.predict_quantiles(newest, 30, [0.5])
    for context_length in (None, 120, 98):
        (ours,) = forecaster.predict_quantiles(inputs_of(long), 30, [0.5], context_length=context_length)
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="context_length 100 and prediction_length 30 are 130 steps"):
        forecaster.predict_quantiles(newest, 30, [0.5], context_length=100)
    with pytest.raises(ValueError, match="128 steps to forecast leave no context"):
        forecaster.predict_quantiles(newest, 128, [0.5])
    with pytest.raises(ValueError, match="at least 1"):
        forecaster.predict_quantiles(newest, 30, [0.5], context_length=0)
    with pytest.raises(ValueError, match="cross_learning"):
        forecaster.predict_quantiles(newest, 30, [0.5], cross_learning=True)


def test_embeddings_end_with_the_context(tiny_time_moe, series):
    tiny_time_moe.train()
    whole, short = FAMILY.forecaster(tiny_time_moe).embed(inputs_of(series, np.stack([series, series])[:, :9]))
    assert whole.shape == (1, 60, 32) and short.shape == (2, 9, 32)
    np.testing.assert_allclose(short[0], short[1], rtol=1e-5, atol=1e-5)
    assert tiny_time_moe.training
    context = torch.from_numpy(series)[None].float()
    scaled = (context - context.mean()) / context.std()
    hidden = tiny_time_moe(scaled, output_hidden_states=True).hidden_states[-1]
    np.testing.assert_allclose(whole, hidden.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("level", "step"), [(2.0**20, 0.125), (-(2.0**22), 0.5), (0, 1e-45), (0, 3e37), (0, 1e30)])
def test_whatever_the_magnitude_the_model_sees_unit_scale(tiny_time_moe, monkeypatch, level, step):
    """In float32 the mean of the first two is rounded by half a deviation, and that of the third has no digits left."""
    seen = []

    def remember(module, values_BL, *arguments, **options):
        seen.append(values_BL.double())
        return generate(module, values_BL, *arguments, **options)

    monkeypatch.setattr("foreloom.models.time_moe.forecast.generate", remember)
    context = np.float32(level) + np.float32(step) * np.random.default_rng(0).integers(-3, 4, 41).astype(np.float32)
    (answer,) = FAMILY.forecaster(tiny_time_moe).predict_quantiles(inputs_of(context), 12, [0.5])
    assert np.isfinite(answer).all()
    (values_BL,) = seen
    np.testing.assert_allclose([values_BL.mean(), values_BL.std()], [0, 1], atol=1e-5)


def test_longer_horizons_are_what_the_model_is_for(tiny_time_moe):
    assert FAMILY.forecaster(tiny_time_moe).is_autoregressive
