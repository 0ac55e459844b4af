"""Forward, loss and gradients against chronos-forecasting's own: the oracle bolt_dummy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from bolt_parity import arrays, assert_quantiles, load


def test_forecast_loss_and_gradients(shared):
    case, model = arrays(shared), load(shared)
    context, target = torch.from_numpy(case["in_context"]), torch.from_numpy(case["in_target"])
    output = model(context, target=target, output_hidden_states=True)
    assert_quantiles(output.quantile_preds.detach().numpy(), case["out_quantile_preds"], case["out_scale"][..., None])
    np.testing.assert_allclose(output.loc.numpy(), case["out_loc"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.scale.numpy(), case["out_scale"], rtol=1e-5)
    assert output.loss.item() == pytest.approx(float(case["out_loss"]), rel=1e-5)

    valid = case["out_attention_mask"] > 0
    np.testing.assert_array_equal(output.token_mask.numpy(), valid)
    hidden = output.last_hidden_state.detach().numpy()
    np.testing.assert_allclose(hidden[valid], case["out_encoder"][valid], rtol=1e-4, atol=1e-6)

    output.loss.backward()
    reference = json.loads((shared / "oracles" / "chronos" / "bolt_dummy.grads.json").read_text())["grad_norms"]
    total = np.linalg.norm(list(reference.values()))
    parameters = dict(model.named_parameters())
    assert parameters.keys() == reference.keys()
    for name, norm in reference.items():
        assert abs(parameters[name].grad.norm().item() - norm) <= 1e-5 * total, name


def test_small_gradients_one_by_one(shared):
    """The gate above is one of the whole; most norms lie far below it."""
    case, model = arrays(shared), load(shared)
    model(torch.from_numpy(case["in_context"]), target=torch.from_numpy(case["in_target"])).loss.backward()
    reference = json.loads((shared / "oracles" / "chronos" / "bolt_dummy.grads.json").read_text())["grad_norms"]
    for name, parameter in model.named_parameters():
        # What attention scores get is what is left of numbers that cancel: the rounding of float32.
        if reference[name] > 1e-7:
            assert parameter.grad.norm().item() == pytest.approx(reference[name], rel=2e-3), name


def test_masks_take_the_place_of_missing_values(shared):
    case, model = arrays(shared), load(shared)
    context, target = torch.from_numpy(case["in_context"]), torch.from_numpy(case["in_target"])
    given = model(context, (~context.isnan()).float(), target, ~target.isnan())
    assert torch.equal(given.quantile_preds, model(context).quantile_preds)
    assert given.loss.item() == pytest.approx(float(case["out_loss"]), rel=1e-5)
