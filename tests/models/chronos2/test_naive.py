"""Naive forecasts inside Chronos-2: the season that is found, what is copied, and the model that begins from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY, recognises
from foreloom.models.chronos2.forecast import Chronos2Forecaster
from foreloom.models.chronos2.naive import naive_forecasts, season_of
from foreloom.models.family import WindowLengths

TINY = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "initializer_factor": 1.0, "use_arcsinh": False}


def seasonal(period: int, length: int, noise: float, rows: int = 20) -> np.ndarray:
    """(rows, length) about a slope, the profile of long periods without jumps."""
    rng = np.random.default_rng(period)
    profile = rng.normal(size=(rows, period))
    if period > 24:
        profile = profile.cumsum(1) - np.linspace(0, 1, period) * profile.sum(1, keepdims=True)
    profile = (profile - profile.mean(1, keepdims=True)) / profile.std(1, keepdims=True)
    values = np.tile(profile, -(-length // period))[:, :length] + noise * rng.normal(size=(rows, length))
    return (values + np.linspace(0, 2, length)).astype(np.float32)


@pytest.mark.parametrize(
    "period, length", [(7, 21), (12, 96), (24, 192), (48, 144), (144, 432), (288, 576), (336, 576)]
)
def test_a_season_is_found_to_the_step(period, length):
    values = torch.from_numpy(seasonal(period, length, noise=0.05))
    observed = torch.rand(values.shape, generator=torch.manual_seed(0)) > 0.1
    for seen in (torch.ones_like(observed), observed):
        season = season_of(torch.where(seen, values, 0.0), seen)
        assert (season.lag_B == period).float().mean() >= 0.9, season.lag_B
        assert season.correlation_B[season.lag_B == period].min() > 0.7
        padded = season_of(
            torch.nn.functional.pad(torch.where(seen, values, 0.0), (100, 0)), torch.nn.functional.pad(seen, (100, 0))
        )
        torch.testing.assert_close(padded, season)


def test_weeks_that_repeat_exactly_are_found_behind_days_that_nearly_do():
    hour = torch.arange(672)
    values = (2.5 * torch.sin(hour * torch.pi / 12) + (hour // 24 % 7 > 4))[None]
    observed = torch.ones_like(values, dtype=torch.bool)
    assert season_of(values, observed).lag_B.item() == 168
    noisy = values + 2 * torch.randn(values.shape, generator=torch.manual_seed(0))
    assert season_of(noisy, observed).lag_B.item() == 24, "noise hides what the week adds"


def test_what_has_no_season_has_none():
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(size=(100, 512)).astype(np.float32))
    assert not season_of(noise, torch.ones_like(noise, dtype=torch.bool)).lag_B.any()
    for row in (torch.zeros(1, 60), torch.arange(60.0)[None], torch.ones(1, 3)):
        for seen in (torch.ones_like(row), torch.zeros_like(row)):
            assert season_of(row * seen, seen.bool()).lag_B.item() == 0


def test_levels_drifts_and_seasons():
    profile = torch.tensor([0.0, 3.0, -1.0, 5.0, 2.0])
    rows = torch.stack([profile.repeat(6), profile.repeat(6), torch.arange(30.0), torch.zeros(30)])
    rows[1] += torch.arange(6).repeat_interleave(5)
    observed = torch.ones_like(rows, dtype=torch.bool)
    observed[1, -4] = False  # the 3: the one of the season before is copied
    observed[2, 5:25] = False
    observed[3] = False
    value, correlation = naive_forecasts(torch.where(observed, rows, 0.0), observed, 8)
    context_mean, last_value, level, drift, last, moved, mean = value.unbind(1)
    ahead = profile.repeat(2)[:8]
    assert not context_mean.any()
    torch.testing.assert_close(last_value, torch.tensor([2.0, 7.0, 29.0, 0.0])[:, None].expand(-1, 8))
    torch.testing.assert_close(level, torch.tensor([2.0, 7.0, 28.0, 0.0])[:, None].expand(-1, 8))
    torch.testing.assert_close(drift[2], 29.0 + torch.arange(1, 9))
    torch.testing.assert_close(drift[0], last_value[0])
    torch.testing.assert_close(drift[3], torch.zeros(8))
    for seasons in (last, moved, mean):
        torch.testing.assert_close(seasons[0], ahead)
        torch.testing.assert_close(seasons[2:], level[2:])
    torch.testing.assert_close(last[1], ahead + torch.tensor([5.0, 4.0, 5.0, 5.0, 5.0, 5.0, 4.0, 5.0]))
    torch.testing.assert_close(mean[1, [0, 1]], ahead[:2] + torch.tensor([3.5, 3.0]))
    assert (moved[1] - last[1]).isclose(torch.tensor(5 + 6.0 / 4 - (4 + 9.0 / 5))).all(), "means of what is observed"
    assert correlation[0] > 0.99 and correlation[2] == correlation[3] == 0.0


def new_model(**fields) -> Chronos2Forecaster:
    model = FAMILY.build(Chronos2Config(from_naive=True, **(TINY | fields)), WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return Chronos2Forecaster(model)


def inputs(values: np.ndarray, horizon: int) -> list[ForecastInput]:
    unknown = np.full((1, horizon), np.nan, np.float32)
    return [ForecastInput(row[None], unknown, num_targets=1) for row in values]


def test_a_new_model_copies_and_a_trained_one_is_one_model_everywhere(tmp_path):
    model, values = new_model(), seasonal(8, 96, noise=0.0, rows=3) - np.linspace(0, 2, 96, dtype=np.float32)
    answers = model.predict_quantiles(inputs(values, 48), 48, [0.1, 0.9])  # 16 steps of it unrolled
    for row, answer in zip(values, answers, strict=True):
        assert (answer[0, :, 0] == answer[0, :, 1]).all(), "the head adds nothing yet"
        of_row, seen = torch.from_numpy(row)[None], torch.ones(1, 96, dtype=torch.bool)
        season = row[np.arange(32) % 8 - 8]
        expected = (3 * season + naive_forecasts(of_row, seen, 32).value_BKH[0, :4].sum(0).numpy() + 3 * row.mean()) / 7
        np.testing.assert_allclose(answer[0, :32, 0], expected, rtol=1e-4, atol=1e-5)

    for name, parameter in model.module.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.05, generator=torch.manual_seed(len(name)))
    lengths = (20, 96, 50)
    series = [x for row, n in zip(values, lengths, strict=True) for x in inputs(row[None, -n:], 32)]
    together = model.predict_quantiles(series, 32, [0.5])
    FAMILY.save(model.module, model.module.state_dict(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert recognises(config) and config["chronos_config"]["from_naive"] is True
    again = Chronos2Forecaster(FAMILY.load(tmp_path))
    for i, one in enumerate(series):
        np.testing.assert_allclose(together[i], again.predict_quantiles([one], 32, [0.5])[0], rtol=1e-3, atol=1e-4)

    # Rows of groups are put in order and back again, and so are their naive forecasts.
    module, context = again.module.eval(), torch.from_numpy(np.concatenate([values, values[::-1]]))
    with torch.no_grad():
        alone = module(context, num_output_patches=2).quantile_preds
        mixed = module(context, group_ids=torch.tensor([0, 1, 2, 1, 3, 4]), num_output_patches=2).quantile_preds
    torch.testing.assert_close(mixed[[0, 2, 4, 5]], alone[[0, 2, 4, 5]], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mixed[[1, 3]], alone[[1, 3]], rtol=1e-3)


def test_the_reference_refuses_what_it_would_read_wrongly(tmp_path):
    chronos = pytest.importorskip("chronos", reason="needs chronos-forecasting")
    model = new_model()
    FAMILY.save(model.module, model.module.state_dict(), tmp_path)
    with pytest.raises(ValueError, match="Chronos2FromNaivePipeline"):
        chronos.BaseChronosPipeline.from_pretrained(tmp_path)
