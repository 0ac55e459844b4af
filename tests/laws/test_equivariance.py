"""Laws: forecasts follow the data's units, f(a x + b) = a f(x) + b, covariates in units of their own; and a series is
forecast alone as in any company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import forecast_input
from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.chronos_t5.generate import draws
from foreloom.models.family import WindowLengths
from foreloom.models.lookbacks import forecaster_of
from foreloom.models.registry import get


def tiny(**fields):
    config = Chronos2Config(size="test", d_model=32, d_kv=8, d_ff=64, initializer_factor=1.0, **fields)
    model = FAMILY.build(config, WindowLengths(96, 32)).eval()
    FAMILY.initialize(model, 0)
    return model


@pytest.mark.parametrize("from_naive", [False, True])
@pytest.mark.parametrize("arcsinh", [True, False])
@pytest.mark.parametrize(("a", "b"), [(1000.0, 0.0), (0.01, 0.0), (1.0, 50.0), (8.0, -20.0)])
def test_scale_and_shift(from_naive, arcsinh, a, b):
    model = tiny(use_arcsinh=arcsinh, from_naive=from_naive)
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(6, 96, generator=generator).cumsum(1)
    context[1, 20:40] = torch.nan
    future = torch.full((6, 32), torch.nan)
    future[4] = torch.randn(32, generator=generator)
    ids = torch.tensor([0, 0, 1, 2, 2, 2])

    def forecast(context, future):
        with torch.no_grad():
            return model(context, group_ids=ids, future_covariates=future, num_output_patches=2)

    plain = forecast(context, future)
    moved = forecast(a * context + b, a * future + b).quantile_preds
    expected = a * plain.quantile_preds + b
    tolerance = 1e-4 * (abs(a) * plain.scale[..., None] + expected.abs())
    assert ((moved - expected).abs() <= tolerance).all()

    # One row in other units changes that row only: covariates may be in any.
    units = torch.tensor([1.0, 1.0, 1.0, 1.0, a, 1.0])[:, None]
    shift = torch.tensor([0.0, 0.0, 0.0, 0.0, b, 0.0])[:, None]
    others = forecast(units * context + shift, units * future + shift).quantile_preds
    rows = torch.tensor([0, 1, 2, 3, 5])
    gap = (others - plain.quantile_preds).abs()[rows]
    assert (gap <= 1e-4 * (plain.scale[..., None] + plain.quantile_preds.abs())[rows]).all()


@pytest.mark.parametrize(("a", "b"), [(1000.0, 0.0), (0.01, 0.0), (1.0, 50.0), (8.0, -20.0)])
def test_scale_and_shift_of_chronos_bolt(tiny_chronos_bolt, a, b):
    walk = torch.randn(5, 128, generator=torch.Generator().manual_seed(0)).cumsum(1)
    walk[1, 20:40] = torch.nan
    plain, moved = (tiny_chronos_bolt(x[:, :96], target=x[:, 96:]) for x in (walk, a * walk + b))
    expected = a * plain.quantile_preds + b
    tolerance = 1e-4 * (abs(a) * plain.scale[..., None] + expected.abs())
    assert ((moved.quantile_preds - expected).abs() <= tolerance).all()
    torch.testing.assert_close(moved.loss, plain.loss, rtol=1e-4, atol=1e-4)


def test_the_loss_does_not_know_units():
    config = Chronos2Config(size="test", d_model=32, d_kv=8, d_ff=64)
    model = FAMILY.build(config, WindowLengths(96, 32)).eval()
    FAMILY.initialize(model, 0)
    walk = torch.randn(5, 128, generator=torch.Generator().manual_seed(0)).cumsum(1)
    losses = [model(x[:, :96], future_target=x[:, 96:]).loss for x in (walk, 300 * walk - 40)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["chronos2", "chronos_bolt", "chronos_t5", "time_moe"])
def test_moves_are_not_lost_in_a_level(request, monkeypatch, name):
    """In float32, 1e9 moves by 64 or not at all."""
    # What Chronos-T5 draws depends on the last bits of a context, which no level leaves as they are.
    same = lambda keys, *how: draws([np.zeros(1, np.float32)] * len(keys), *how)
    monkeypatch.setattr("foreloom.models.chronos_t5.forecast.draws", same)
    forecaster = forecaster_of(get(name), request.getfixturevalue(f"tiny_{name}"))
    moves_VL = np.random.default_rng(0).normal(0, 10, (2, 60)).cumsum(1)
    moves_VL[1, 20:30] = np.nan
    moves_VL -= np.nanmean(moves_VL, axis=1, keepdims=True)
    rain, ahead = np.arange(60.0) % 7, np.arange(12.0) % 7

    def ask(level, dtype=np.float64):
        one = forecast_input((moves_VL + level).astype(dtype), {"rain": rain + level}, {"rain": ahead + level}, 12)
        return forecaster.predict_quantiles([one], 12, [0.1, 0.5, 0.9])[0]

    plain = ask(0.0)
    assert plain.dtype == np.float32 and np.ptp(plain) > 1
    for level in (1e8, -1e9):
        answer = ask(level)
        assert answer.dtype == np.float64
        np.testing.assert_allclose(answer - level, plain, rtol=1e-3, atol=1e-2)
    # A level that float32 keeps beside the moves, and one that is all there is, are the model's own affair.
    assert ask(1e4).dtype == np.float32
    flat = forecast_input(np.full((1, 60), 1e9 + 3), {}, {}, 12)
    assert forecaster.predict_quantiles([flat], 12, [0.5])[0].dtype == np.float32


def clean_series() -> dict[str, np.ndarray]:
    """What repeats exactly, lines and constants, where rounding alone could tell one batch from another."""
    week = np.array([3.0, 1, 4, 1, 5, 9, 2])
    parts = {
        "week": np.tile(week, 14)[:96],
        "two weeks and a bit": np.tile(week, 3)[:17],
        "day and week": np.tile(np.tile([0.0, 2, 1], 7) + np.repeat(week, 3), 5)[:90],
        "on and off": np.arange(31.0) % 2,
        "wave": 1e3 + np.sin(2 * np.pi * np.arange(72) / 12),
        "season on a line": np.tile(week, 9) + 0.25 * np.arange(63),
        "line": np.arange(40.0),
        "falling line": 7 - 0.1 * np.arange(25),
        "constant": np.full(50, 4.2),
        "nothing": np.zeros(12),
        "two steps": np.array([1.0, 2]),
        "season with gaps": np.tile(week, 12),
        "longest": np.tile(week, 13) + np.random.default_rng(0).normal(0, 0.3, 91),
    }
    parts["season with gaps"][30:40] = np.nan
    return parts


@pytest.mark.parametrize(
    "name", ["chronos2", "chronos2 from naive", "chronos2 of lookbacks", "chronos_bolt", "chronos_t5", "time_moe"]
)
def test_company_changes_nothing(request, monkeypatch, name):
    family = get(name.partition(" ")[0])
    options = {"naive": {"from_naive": True}, "lookbacks": {"group_attention": False, "lookbacks": 4}}.get(
        name.split()[-1]
    )
    model = tiny(**options) if options else request.getfixturevalue(f"tiny_{name}")
    same = lambda keys, *how: draws([np.zeros(1, np.float32)] * len(keys), *how)
    monkeypatch.setattr("foreloom.models.chronos_t5.forecast.draws", same)
    forecaster, series = forecaster_of(family, model), clean_series()

    def ask(names, **how):
        inputs = [forecast_input(series[one][None], {}, {}, 12) for one in names]
        answers = forecaster.predict_quantiles(inputs, 12, [0.1, 0.5, 0.9], **how)
        return dict(zip(names, answers, strict=True))

    alone = {one: ask([one])[one] for one in series}
    companies = {
        "all": ask([*series]),
        "in another order": ask([*series][::-1]),
        "in batches of three": ask([*series], batch_size=3),
        "of short ones": ask([one for one in series if len(series[one]) < 32]),
    }
    for company, answers in companies.items():
        for one, answer in answers.items():
            spread = np.nanmax(series[one]) - np.nanmin(series[one])
            gap = np.abs(answer - alone[one]).max()
            assert gap <= 1e-4 * (spread + np.abs(alone[one]).max()), (company, one, gap)
