"""The module on its own: which contexts it takes, what it never reads, what stays in float32."""

from __future__ import annotations

import copy

import pytest
import torch

from foreloom.models.chronos_bolt.architecture import ChronosBoltConfig
from foreloom.models.chronos_bolt.family import FAMILY
from foreloom.models.common.layers import RMSNorm
from foreloom.models.family import WindowLengths


@pytest.fixture
def model(tiny_chronos_bolt):
    return tiny_chronos_bolt


@pytest.fixture
def rows():
    walk = torch.randn(4, 126, generator=torch.Generator().manual_seed(0)).cumsum(1)
    walk[2, :50] = torch.nan
    walk[1, 20:37] = torch.nan
    return walk


@pytest.fixture
def without_reg_token():
    config = ChronosBoltConfig(
        size="test", d_model=32, d_kv=8, d_ff=64, initializer_factor=1.0, use_reg_token=False, input_patch_size=8
    )
    model = FAMILY.build(config, WindowLengths(96, 32))
    FAMILY.initialize(model, 0)
    return model.eval()


@pytest.mark.parametrize("num_steps", [1, 5, 16, 17, 97, 200])
def test_contexts_around_a_patch_and_the_limit(model, num_steps):
    context = torch.randn(2, num_steps)
    output = model(context, target=torch.randn(2, 5))
    assert output.quantile_preds.shape == (2, 9, 32) and output.quantile_preds.isfinite().all()
    assert output.objective.count.item() == 10
    assert torch.equal(output.quantile_preds, model(context[:, -96:]).quantile_preds)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (5,)])
def test_an_empty_context_is_refused(model, shape):
    with pytest.raises(ValueError, match=r"context must be \(rows, steps\), one of each at least, got shape"):
        model(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 33), (3, 32), (32,)])
def test_a_target_that_the_head_cannot_give_is_refused(model, shape):
    with pytest.raises(ValueError, match=r"target has shape .*; expected 2 rows of at most 32 steps"):
        model(torch.zeros(2, 40), target=torch.zeros(shape))


def test_rows_without_values_or_spread_are_forecast(model, without_reg_token):
    context = torch.stack([torch.full((40,), torch.nan), torch.full((40,), 3.0), torch.zeros(40)])
    for module in (model, without_reg_token):
        output = module(context)
        assert output.quantile_preds.isfinite().all()
        assert (output.quantile_preds[1] - 3.0).abs().max() < 1e-3
        alone = module(context[:1, :1]).quantile_preds
        torch.testing.assert_close(output.quantile_preds[:1], alone, rtol=1e-5, atol=1e-5)


def test_padding_before_a_row_changes_nothing(model, without_reg_token, rows):
    context = rows[:, :40]
    padded = torch.cat([torch.full((4, 40), torch.nan), context], 1)
    for module in (model, without_reg_token):
        torch.testing.assert_close(module(padded).quantile_preds, module(context).quantile_preds, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_units_norms_and_loss_in_float32(model, rows, dtype):
    # Half precision would lose such a series: near 1e5 the spacing of bfloat16 is 512, and float16 ends at 65,504.
    context, target = (rows + 1e5)[:, :96], (rows + 1e5)[:, 96:]
    products, norms = set(), set()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: products.add(output.dtype))
        if isinstance(module, RMSNorm):
            module.register_forward_hook(lambda module, inputs, output: norms.add(output.dtype))
    plain = model(context, target=target)
    products.clear()
    with torch.autocast("cpu", dtype=dtype):
        half = model(context, target=target)
    assert products == {dtype} and norms == {torch.float32}
    for name in ("loc", "scale"):
        assert torch.equal(getattr(half, name), getattr(plain, name))
    assert half.loss.dtype == half.objective.sum.dtype == half.quantile_preds.dtype == torch.float32
    torch.testing.assert_close(half.loss, plain.loss, rtol=0.02, atol=0)


def test_recomputed_blocks_give_the_same_gradients(tiny_chronos_bolt):
    from torch.utils.checkpoint import checkpoint

    context, target = torch.randn(3, 64).cumsum(1), torch.randn(3, 16)

    def gradients(recompute: bool) -> list[torch.Tensor]:
        model = copy.deepcopy(tiny_chronos_bolt)
        if recompute:
            for block in (*model.encoder.block, *model.decoder.block):
                block.forward = lambda *a, f=block.forward: checkpoint(f, *a, use_reentrant=False)
        torch.manual_seed(0)
        model.train()(context, target=target).loss.backward()
        return [p.grad for p in model.parameters()]

    torch.testing.assert_close(gradients(True), gradients(False))


def test_a_training_step_never_looks_at_a_number_on_the_device(tiny_chronos_bolt):
    """The meta device has shapes and no numbers: what would make the host wait for an accelerator raises there."""
    import numpy as np

    from foreloom.data.stream.windows import Windows

    rng, index = np.random.default_rng(0), np.arange(6)
    context_RC = rng.normal(size=(6, 96)).astype(np.float32)
    context_RC[0, :40] = np.nan
    future_RH = rng.normal(size=(6, 30)).astype(np.float32)
    windows = Windows(context_RC, future_RH, np.zeros(6, np.int8), index, index, index.astype(np.int32), index)
    meta = torch.device("meta")
    model = tiny_chronos_bolt.to(meta).train()
    model(**FAMILY.batch(model, windows, meta)).objective.sum.backward()
