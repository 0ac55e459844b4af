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
from foreloom.models.chronos2.naive import naive_forecasts
from foreloom.models.family import WindowLengths

TINY = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "initializer_factor": 1.0, "use_arcsinh": False}


def test_levels_drifts_and_seasons():
    profile = torch.tensor([0.0, 3.0, -1.0, 5.0, 2.0])
    rows = torch.stack(
        [profile.repeat(6), profile.repeat(6), torch.arange(30.0), torch.zeros(30), 1.05 ** torch.arange(30)]
    )
    rows[1] += torch.arange(6).repeat_interleave(5)
    observed = torch.ones_like(rows, dtype=torch.bool)
    observed[1, -4] = False  # the 3: the one of the season before is copied
    observed[2, 5:25] = False
    observed[3] = False
    naive = naive_forecasts(torch.where(observed, rows, 0.0), observed, 8)
    context_mean, last_value, level, drift, growing, *seasonal = naive.value_BKH.unbind(1)
    last, moved, mean, mean_moved, *_ = seasonal
    ahead = profile.repeat(2)[:8]
    column = lambda *values: torch.tensor(values)[:, None].expand(-1, 8)
    assert not context_mean.any()
    torch.testing.assert_close(last_value[:4], column(2.0, 7.0, 29.0, 0.0))
    torch.testing.assert_close(level[:4], column(2.0, 7.0, 28.0, 0.0))
    torch.testing.assert_close(drift[2], 29.0 + torch.arange(1, 9))
    torch.testing.assert_close(drift[0], last_value[0])
    torch.testing.assert_close(drift[3], torch.zeros(8))
    true = 1.05 ** torch.arange(30.0, 38.0)
    assert drift[4, -1] < 0.9 * true[-1], "growth is more than a line"
    torch.testing.assert_close(growing[4], true, rtol=0.02, atol=0.0)
    for seasons in seasonal:
        torch.testing.assert_close(seasons[0], ahead)
        torch.testing.assert_close(seasons[2:], level[2:])
    torch.testing.assert_close(last[1], ahead + torch.tensor([5.0, 4.0, 5.0, 5.0, 5.0, 5.0, 4.0, 5.0]))
    torch.testing.assert_close(moved[1], last[1] + torch.tensor([1.0] * 5 + [2.0] * 3))
    torch.testing.assert_close(mean[1], ahead + 5.0)  # every season put where the last one lies
    torch.testing.assert_close(mean_moved[1], ahead + torch.tensor([6.0] * 5 + [7.0] * 3))
    assert naive.correlation_B2[0, 0] > 0.99 and not naive.correlation_B2[2:].any()
    # Which would have been the best: of a season its copies, of growth the drift that grows. Not how good it is.
    error_BK = naive.error_BK
    torch.testing.assert_close(error_BK.mean(1), torch.zeros(5))
    assert (error_BK[0, 5:] < error_BK[0, :5].min() - 3).all()
    assert error_BK[4, 4] + 0.5 < error_BK[4, 3] < error_BK[4, 1] - 1
    assert not error_BK[3].any(), "where nothing is known none is better"


def new_model(**fields) -> Chronos2Forecaster:
    model = FAMILY.build(Chronos2Config(from_naive=True, **(TINY | fields)), WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return Chronos2Forecaster(model)


def inputs(values: np.ndarray, horizon: int) -> list[ForecastInput]:
    unknown = np.full((1, horizon), np.nan, np.float32)
    return [ForecastInput(row[None], unknown, num_targets=1) for row in values]


def test_a_new_model_copies_and_a_trained_one_is_one_model_everywhere(tmp_path):
    model = new_model()
    values = np.tile(np.random.default_rng(0).normal(size=(3, 8)), 12).astype(np.float32)
    answers = model.predict_quantiles(inputs(values, 48), 48, [0.1, 0.9])  # 16 steps of it unrolled
    for row, answer in zip(values, answers, strict=True):
        assert (answer[0, :, 0] == answer[0, :, 1]).all(), "the head adds nothing yet"
        of_row, seen = torch.from_numpy(row)[None], torch.ones(1, 96, dtype=torch.bool)
        naive = naive_forecasts((of_row - of_row.mean()) / of_row.std(correction=0), seen, 32).value_BKH[0]
        np.testing.assert_allclose(naive[5] * row.std() + row.mean(), row[np.arange(32) % 8 - 8], rtol=1e-4, atol=1e-5)
        expected = naive.mean(0) * row.std() + row.mean()
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
