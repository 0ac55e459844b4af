"""The module on its own: what stays in float32, what the objective sums, which contexts it takes."""

from __future__ import annotations

import pytest
import torch

from foreloom.models.common.layers import RMSNorm


@pytest.fixture
def model(tiny_chronos2):
    return tiny_chronos2


@pytest.fixture
def rows():
    walk = torch.randn(4, 126, generator=torch.Generator().manual_seed(0)).cumsum(1)
    walk[2, :50] = torch.nan
    return walk


IDS = torch.tensor([0, 0, 1, 2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_units_norms_and_loss_in_float32(model, rows, dtype):
    # Half precision would lose such a series: near 1e5 the spacing of bfloat16 is 512, and float16 ends at 65,504.
    rows = rows + 1e5
    context, target = rows[:, :96], rows[:, 96:]
    products, norms = set(), set()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: products.add(output.dtype))
        if isinstance(module, RMSNorm):
            module.register_forward_hook(lambda module, inputs, output: norms.add(output.dtype))
    plain = model(context, group_ids=IDS, future_target=target)
    assert products == {torch.float32}
    products.clear()
    with torch.autocast("cpu", dtype=dtype):
        half = model(context, group_ids=IDS, future_target=target)
    assert products == {dtype} and norms == {torch.float32}
    for name in ("loc", "scale"):
        assert torch.equal(getattr(half, name), getattr(plain, name))
    assert half.loss.dtype == half.objective.sum.dtype == half.quantile_preds.dtype == torch.float32
    gap = (half.quantile_preds - plain.quantile_preds).abs() / plain.scale[..., None]
    assert gap.median() < 0.05
    torch.testing.assert_close(half.loss, plain.loss, rtol=0.02, atol=0)

    half.objective.sum.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or (parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()), (
            name
        )


def test_the_objective_is_the_sum_over_unmasked_target_steps(model, rows):
    context, target = rows[:, :96], rows[:, 96:].clone()
    target[0, ::3] = torch.nan
    covariates = torch.full_like(target, torch.nan)
    covariates[1] = target[1]
    target[1] = torch.nan
    output = model(context, group_ids=IDS, future_covariates=covariates, future_target=target)
    z = (output.quantile_preds - output.loc[..., None]) / output.scale[..., None]
    y = ((target - output.loc) / output.scale).asinh()
    seen = ~target.isnan()
    levels = torch.tensor(model.architecture.quantiles)
    error = (y[:, None] - z.asinh()[..., :30]).nan_to_num()
    by_hand = 2 * torch.where(error > 0, levels[:, None] * error, (levels[:, None] - 1) * error).sum().item()
    assert output.objective.count.item() == seen.sum().item() == 20 + 30 + 30
    assert output.objective.sum.item() == pytest.approx(by_hand, rel=1e-4)
    assert output.loss.item() == pytest.approx(by_hand / (4 * 32), rel=1e-4)


def test_integers_are_read_as_numbers(model):
    context, target = torch.arange(96).repeat(2, 1), torch.arange(96, 116).repeat(2, 1)
    whole, real = model(context, future_target=target), model(context.float(), future_target=target.float())
    assert torch.equal(whole.quantile_preds, real.quantile_preds) and torch.equal(whole.loss, real.loss)


@pytest.mark.parametrize("num_steps", [1, 5, 16, 17])
def test_contexts_around_a_patch(model, num_steps):
    output = model(torch.randn(1, num_steps), future_target=torch.randn(1, 5))
    assert output.quantile_preds.shape == (1, 21, 16) and output.quantile_preds.isfinite().all()
    assert output.objective.count.item() == 5


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (5,)])
def test_an_empty_context_is_refused(model, shape):
    with pytest.raises(ValueError, match=r"context must be \(rows, steps\), one of each at least, got shape"):
        model(torch.zeros(shape))
