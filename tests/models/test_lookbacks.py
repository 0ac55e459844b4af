"""The mean over several pasts: how far each looks back, that it is the mean of what they give, in every family."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch

import foreloom
import in_process
from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.ranks import StepBoundedForecaster
from foreloom.models.calibration import LEVELS as LEVELS_CALIBRATED
from foreloom.models.calibration import CalibratedForecaster, Calibration
from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.family import RoutedForecaster, WindowLengths
from foreloom.models.lookbacks import LookbacksForecaster, forecaster_of, lookbacks
from foreloom.models.registry import get

TINY = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "initializer_factor": 1.0}
HORIZON, LEVELS = 40, [0.1, 0.5, 0.9]  # 8 steps of the horizon are unrolled


def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    day, noise = rng.normal(size=24), rng.normal(size=168)
    week = np.tile(day, 7) + 4 * np.repeat([0, 0, 0, 0, 0, 1, 1], 24)
    gaps = rng.normal(size=80)
    gaps[-60:-5] = np.nan
    found = {"noise": noise, "days": np.tile(day, 7), "weeks": np.tile(week, 4), "gaps": gaps, "short": noise[:20]}
    late = np.concatenate([np.full(300, np.nan), noise])  # begins after the context does
    found |= {"late": late, "unseen": np.full(9, np.nan)}
    return {name: row.astype(np.float32) for name, row in found.items()}


def one_input(*contexts: np.ndarray) -> ForecastInput:
    unknown = np.full((len(contexts), HORIZON), np.nan, np.float32)
    return ForecastInput(np.stack(contexts), unknown, len(contexts))


def test_each_shows_two_seasons_and_sixteen_steps():
    series = rows()
    inputs = [one_input(row) for row in series.values()]
    steps_KB = lookbacks(inputs, 6, 672)
    assert dict(zip(series, steps_KB.T.tolist(), strict=True)) == {
        "noise": [168, 119, 84, 59, 42, 30],
        "days": [168, 119, 84, 59, 0, 0],  # two days at least
        "weeks": [672, 475, 336, 0, 0, 0],  # the days of a week differ, so it is the week that must be there twice
        "gaps": [80, 0, 0, 0, 0, 0],  # of the newest 57 steps five are observed
        "short": [20, 0, 0, 0, 0, 0],
        "late": [168, 119, 84, 59, 42, 30],
        "unseen": [1, 0, 0, 0, 0, 0],
    }
    for i, one in enumerate(inputs):  # whatever stands beside it
        assert (lookbacks([one], 6, 672)[:, 0] == steps_KB[:, i]).all()
    assert lookbacks(inputs, 2, 100)[:, 0].tolist() == [100, 71]
    together = lookbacks([one_input(series["noise"], series["days"])], 6, 672)
    assert together[:, 0].tolist() == [168, 119, 84, 59, 0, 0], "targets that are forecast together look equally far"
    level = lookbacks([one_input(1e9 + series["days"].astype(np.float64))], 6, 672)
    assert (level[:, 0] == steps_KB[:, 1]).all()


@pytest.mark.parametrize("is_univariate", [True, False])
def test_a_forecast_is_the_mean_of_those_of_its_lookbacks(is_univariate):
    model = FAMILY.build(Chronos2Config(**TINY, group_attention=not is_univariate, lookbacks=3), WindowLengths(192, 32))
    FAMILY.initialize(model, 0)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.05, generator=torch.manual_seed(len(name)))
    assert FAMILY.forecaster is not None
    forecaster, plain = forecaster_of(FAMILY, model), FAMILY.forecaster(model)
    series = rows()

    def ask(which, *contexts: np.ndarray) -> np.ndarray:
        (answer,) = which.predict_quantiles([one_input(*contexts)], HORIZON, LEVELS, batch_size=1)
        return answer

    noise, days = series["noise"], series["days"]
    companies = [[noise], [days]] if is_univariate else [[noise, days]]
    expected = [
        np.mean([ask(plain, *(x[-n:] for x in company)) for n in (168, 119, 84)], axis=0) for company in companies
    ]
    np.testing.assert_allclose(ask(forecaster, noise, days), np.concatenate(expected), rtol=1e-4, atol=1e-4)
    assert not np.allclose(ask(plain, noise, days), np.concatenate(expected), rtol=1e-2)
    np.testing.assert_allclose(ask(forecaster, series["short"]), ask(plain, series["short"]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="cross_learning: this model looks back 3 times"):
        forecaster.predict_quantiles([one_input(noise)], HORIZON, LEVELS, cross_learning=True)

    # Sharded ranks must make as many forwards, whatever their rows hold.
    forwards: list[int] = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    for context in (noise, days, series["short"], series["unseen"]):
        ask(forecaster, context)
        assert len(forwards) == 3 * math.ceil(HORIZON / 32)
        forwards.clear()


@pytest.mark.parametrize("name", ["chronos2", "chronos_bolt", "chronos_t5", "time_moe"])
def test_every_family_keeps_them_in_its_config(request, tmp_path, name):
    family, model = get(name), request.getfixturevalue(f"tiny_{name}")
    assert not hasattr(forecaster_of(family, model), "num")
    family.save(model, model.state_dict(), tmp_path / "once")
    assert "lookbacks" not in json.loads((tmp_path / "once" / "config.json").read_text())

    def built(folder, **settings):
        lengths = WindowLengths(16, 8)
        return family.build(family.config(pretrained=str(folder), **settings), lengths)

    thrice = built(tmp_path / "once", lookbacks=3)
    family.save(thrice, thrice.state_dict(), tmp_path / "thrice")
    assert json.loads((tmp_path / "thrice" / "config.json").read_text())["lookbacks"] == 3
    forecaster = forecaster_of(family, family.load(tmp_path / "thrice"))
    plain = family.forecaster(model)
    assert isinstance(forecaster, StepBoundedForecaster) == isinstance(plain, StepBoundedForecaster)
    assert (forecaster.on_scaled_data() is forecaster) == (plain.on_scaled_data() is plain)
    context = one_input(rows()["noise"][-16:])
    answers = [one.predict_quantiles([context], 8, [0.5])[0] for one in (forecaster, plain)]
    np.testing.assert_allclose(*answers, rtol=1e-5)  # of so short a past there is one lookback
    assert built(tmp_path / "thrice").architecture.lookbacks == 3
    once = built(tmp_path / "thrice", lookbacks=1)
    family.save(once, once.state_dict(), tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads(
        (tmp_path / "once" / "config.json").read_text()
    )
    path = tmp_path / "thrice" / "config.json"
    path.write_text(path.read_text().replace('"lookbacks": 3', '"lookbacks": 0'))
    with pytest.raises(ValueError, match="lookbacks is 0; write a whole number from 1"):
        family.load(tmp_path / "thrice")


@pytest.mark.parametrize("protocol", ["standard", "reference"])
def test_the_longest_is_what_the_model_would_look_at(tiny_time_moe, protocol):
    """Which follows from the horizon, of a model whose context and horizon have one limit, here 128 steps."""
    tiny_time_moe.protocol = protocol
    plain = get("time_moe").forecaster(tiny_time_moe)
    steady, x = LookbacksForecaster(plain, 3), np.random.default_rng(1).normal(size=150).astype(np.float32)

    def ask(which, context, horizon, asked):
        one = ForecastInput(context[None], np.full((1, horizon), np.nan, np.float32), 1)
        return which.predict_quantiles([one], horizon, [0.5], context_length=asked)[0]

    whole = len(x) if protocol == "reference" else 128 - 28
    cases = [(None, 28, whole), (plain.context_length, 28, whole), (126, 2, 126)]
    beyond = [(None, 130, whole)] if protocol == "reference" else []
    for asked, horizon, first in cases + beyond:
        warns = pytest.warns(UserWarning, match="cut to its newest 100") if first == 100 else nullcontext()
        with warns as caught:
            answer = ask(steady, x, horizon, asked)
        assert caught is None or len(caught) == 1
        pasts = [x[-n:] for n in (first, round(first * 0.5**0.5), round(first / 2))]
        expected = np.mean([ask(plain, past, horizon, asked) for past in pasts], axis=0)
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)
    with (
        pytest.raises(ValueError, match="context_length 110 and prediction_length 28 are")
        if (protocol == "standard")
        else nullcontext()
    ):
        ask(steady, x, 28, 110)


def test_more_than_there_can_be_cost_nothing(tiny_chronos_bolt):
    plain, asked = get("chronos_bolt").forecaster(tiny_chronos_bolt), []
    tiny_chronos_bolt.register_forward_hook(lambda *_: asked.append(1))
    noise = rows()["noise"][:96]
    many = LookbacksForecaster(plain, 10**9)
    (answer,) = many.predict_quantiles([one_input(noise)], 8, [0.5])
    assert len(asked) == 6, "96 steps, 68, 48, 34, 24 and 17: the next is below 16"
    np.testing.assert_array_equal(
        answer, LookbacksForecaster(plain, 6).predict_quantiles([one_input(noise)], 8, [0.5])[0]
    )
    asked.clear()
    many.predict_quantiles([one_input(noise)], 8, [0.5], context_length=15)
    assert len(asked) == 1


class BareForecaster:
    quantile_levels, context_length, prediction_length = (0.5,), 96, 8
    is_autoregressive, is_univariate = False, True


def test_what_float32_holds_it_holds_on_the_mean():
    class Large(BareForecaster):
        def predict_quantiles(self, inputs, prediction_length, quantile_levels, **options):
            return [np.full((1, prediction_length, 1), 2e38, np.float32) for _ in inputs]

    (answer,) = LookbacksForecaster(Large(), 6).predict_quantiles([one_input(rows()["noise"][:96])], 8, [0.5])
    assert answer.dtype == np.float32 and (answer == np.float32(2e38)).all()


def test_where_experts_send_a_series_is_told_of_models_that_look_back_or_are_calibrated(tiny_time_moe):
    plain = get("time_moe").forecaster(tiny_time_moe)
    steady = LookbacksForecaster(plain, 3)
    calibration = Calibration(LEVELS_CALIBRATED, (0,), np.zeros((1, len(LEVELS_CALIBRATED))), {})
    contexts = [one_input(rows()["noise"][:50])]
    expected = plain.route(contexts).chosen_RLE
    for one in (steady, CalibratedForecaster(steady, calibration)):
        assert isinstance(one, RoutedForecaster)
        np.testing.assert_array_equal(one.route(contexts).chosen_RLE, expected)
    assert not isinstance(CalibratedForecaster(BareForecaster(), calibration), RoutedForecaster)


def test_they_are_asked_for_when_a_model_is_loaded(tiny_chronos2, tiny_decoder, tmp_path):
    once, text = tmp_path / "once", tmp_path / "text"
    FAMILY.save(tiny_chronos2, tiny_chronos2.state_dict(), once)
    get("decoder").save(tiny_decoder, tiny_decoder.state_dict(), text)
    table = pd.DataFrame(
        {"item_id": "a", "timestamp": pd.date_range("2024-01-01", periods=96, freq="h"), "target": rows()["noise"][:96]}
    )
    steady = foreloom.from_pretrained(once, device="cpu", lookbacks=2)
    frame = steady.predict_df(table, prediction_length=6)
    parts = [
        foreloom.from_pretrained(once, device="cpu").predict_df(table, prediction_length=6, context_length=n)
        for n in (steady.forecaster.context_length, round(steady.forecaster.context_length * 0.5**0.5))
    ]
    np.testing.assert_allclose(frame["0.9"], (parts[0]["0.9"] + parts[1]["0.9"]) / 2, rtol=1e-4)
    table.to_csv(tmp_path / "table.csv", index=False)
    out = tmp_path / "forecast.csv"
    asked = ["--horizon", "6", "--lookbacks", "2", "--out", str(out)]
    assert in_process.foreloom(["forecast", str(once), str(tmp_path / "table.csv"), *asked]) == 0
    np.testing.assert_allclose(pd.read_csv(out)["0.9"], frame["0.9"], rtol=1e-5)

    with pytest.raises(ValueError, match="lookbacks: fit begins with .*once, whose config.json says 1, and the model"):
        steady.fit(table, 6, tmp_path / "fit")
    assert not (tmp_path / "fit").exists()
    steady.calibration = Calibration(LEVELS_CALIBRATED, (0,), np.zeros((1, len(LEVELS_CALIBRATED))), {})
    steady.save_pretrained(tmp_path / "calibrated")
    assert foreloom.from_pretrained(tmp_path / "calibrated", device="cpu").module.architecture.lookbacks == 2
    for folder, num, message in (
        (tmp_path / "calibrated", 1, "the model was calibrated looking back 2 times"),
        (text, 2, "a model of the family decoder does not forecast series"),
        (once, 0, "lookbacks"),
    ):
        with pytest.raises(ValueError, match=message):
            foreloom.from_pretrained(folder, device="cpu", lookbacks=num)
