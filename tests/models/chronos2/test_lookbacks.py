"""The mean over several pasts: how far each looks back, and that it is the mean of what they give alone."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.chronos2.forecast import Chronos2Forecaster
from foreloom.models.chronos2.lookbacks import lookbacks
from foreloom.models.family import WindowLengths

CPU = torch.device("cpu")
TINY = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "initializer_factor": 1.0, "from_naive": True}


def series() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    day, noise = rng.normal(size=24), rng.normal(size=168)
    week = np.tile(day, 7) + 4 * np.repeat([0, 0, 0, 0, 0, 1, 1], 24)
    gaps = rng.normal(size=80)
    gaps[-60:-5] = np.nan
    rows = {"noise": noise, "days": np.tile(day, 7), "weeks": np.tile(week, 4), "gaps": gaps, "short": noise[:20]}
    return {name: row.astype(np.float32) for name, row in rows.items()} | {"unseen": np.full(9, np.nan, np.float32)}


def test_each_shows_two_seasons_and_sixteen_steps():
    rows = series()
    longest = max(map(len, rows.values()))
    context_BL = np.full((len(rows), longest + 5), np.nan, np.float32)
    for row_L, x_L in zip(context_BL, rows.values(), strict=True):
        row_L[len(row_L) - len(x_L) :] = x_L
    steps_KB = lookbacks(context_BL, 6, CPU)
    found = dict(zip(rows, steps_KB.T.tolist(), strict=True))
    assert found == {
        "noise": [168, 119, 84, 59, 42, 30],
        "days": [168, 119, 84, 59, 0, 0],  # two days at least
        "weeks": [672, 475, 336, 0, 0, 0],  # the days of a week differ, so it is the week that must be there twice
        "gaps": [80, 0, 0, 0, 0, 0],  # of the newest 57 steps five are observed
        "short": [20, 0, 0, 0, 0, 0],
        "unseen": [1, 0, 0, 0, 0, 0],
    }
    for i, x_L in enumerate(rows.values()):  # whatever stands beside a row
        assert (lookbacks(x_L[None], 6, CPU)[:, 0] == steps_KB[:, i]).all()
    assert (lookbacks(context_BL, 1, CPU) == steps_KB[:1]).all()


def test_a_forecast_is_the_mean_of_those_of_its_lookbacks(tmp_path):
    config = Chronos2Config(**TINY, group_attention=False, lookbacks=3)
    model = FAMILY.build(config, WindowLengths(192, 32))
    FAMILY.initialize(model, 0)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.05, generator=torch.manual_seed(len(name)))
    FAMILY.save(model, model.state_dict(), tmp_path)
    published = json.loads((tmp_path / "config.json").read_text())
    assert published["chronos_config"]["lookbacks"] == 3
    forecaster = Chronos2Forecaster(FAMILY.load(tmp_path))
    del published["chronos_config"]["lookbacks"]
    (tmp_path / "config.json").write_text(json.dumps(published))
    of_one = Chronos2Forecaster(FAMILY.load(tmp_path))
    rows, horizon, levels = series(), 40, [0.1, 0.5, 0.9]  # 8 steps of the horizon are unrolled

    def ask(forecaster: Chronos2Forecaster, *contexts: np.ndarray) -> np.ndarray:
        unknown = np.full((len(contexts), horizon), np.nan, np.float32)
        (answer,) = forecaster.predict_quantiles([ForecastInput(np.stack(contexts), unknown, len(contexts))], horizon,
                                                 levels)  # fmt: skip
        return answer

    noise, days = rows["noise"], rows["days"]
    expected = [np.mean([ask(of_one, x[-n:])[0] for n in (168, 119, 84)], axis=0) for x in (noise, days)]
    np.testing.assert_allclose(ask(forecaster, noise, days), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(ask(of_one, noise), expected[0], rtol=1e-2)
    np.testing.assert_allclose(ask(forecaster, rows["short"]), ask(of_one, rows["short"]), rtol=1e-5, atol=1e-6)

    # Sharded ranks must make as many forwards, whatever their rows hold.
    forwards: list[int] = []
    forecaster.module.register_forward_hook(lambda *_: forwards.append(1))
    counts = []
    for contexts in ([noise, days], [rows["short"]], [rows["unseen"]]):
        ask(forecaster, *contexts)
        counts.append(len(forwards))
        forwards.clear()
    assert counts == [3 * math.ceil(horizon / 32)] * 3


def test_rows_that_see_each_other_look_equally_far_back():
    with pytest.raises(ValueError, match="group_attention: false, or lookbacks: 1"):
        FAMILY.build(Chronos2Config(**TINY, lookbacks=2), WindowLengths(96, 32))
