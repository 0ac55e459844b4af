"""Law: forecasts follow the data's units, f(a x + b) = a f(x) + b, covariates in units of their own."""

from __future__ import annotations

import pytest
import torch

from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.family import WindowLengths


@pytest.mark.parametrize("arcsinh", [True, False])
@pytest.mark.parametrize(("a", "b"), [(1000.0, 0.0), (0.01, 0.0), (1.0, 50.0), (8.0, -20.0)])
def test_scale_and_shift(arcsinh, a, b):
    config = Chronos2Config(size="test", d_model=32, d_kv=8, d_ff=64, initializer_factor=1.0, use_arcsinh=arcsinh)
    model = FAMILY.build(config, WindowLengths(96, 32)).eval()
    FAMILY.initialize(model, 0)
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
