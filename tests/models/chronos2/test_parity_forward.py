"""Forward, loss and gradients against chronos-forecasting's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from chronos2_parity import arrays, assert_quantiles, forward_arguments, load
from safetensors.torch import load_file

CASES = [
    ("dummy_uni", "dummy-chronos2-model"),
    ("dummy_group", "dummy-chronos2-model"),
    ("dummy_lora_merged_group", "dummy-chronos2-lora"),
    ("c2a_uni", "c2a"),
    ("c2a_group", "c2a"),
    ("c2a_masks_trunc", "c2a"),
    ("c2a_onegroup", "c2a"),
    ("c2a_singletons", "c2a"),
    ("c2noreg_uni", "c2noreg"),
    ("c2noreg_group", "c2noreg"),
]


@pytest.mark.parametrize(("name", "checkpoint"), CASES)
def test_forecast_loss_and_gradients(shared, name, checkpoint):
    case, model = arrays(shared, name), load(shared, checkpoint)
    output = model(**forward_arguments(case))
    assert_quantiles(output.quantile_preds.detach().numpy(), case["out_quantile_preds"], case["out_scale"][..., None])
    np.testing.assert_allclose(output.loc.numpy(), case["out_loc"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.scale.numpy(), case["out_scale"], rtol=1e-5)
    assert output.loss.item() == pytest.approx(float(case["out_loss"]), rel=1e-5)

    output.loss.backward()
    reference = json.loads((shared / "oracles" / "chronos" / f"{name}.grads.json").read_text())
    gate = 1e-5 * reference["total_grad_norm"]
    parameters = dict(model.named_parameters())
    assert parameters.keys() == reference["grad_norms"].keys()
    for parameter, norm in reference["grad_norms"].items():
        gradient = parameters[parameter].grad
        ours = 0.0 if gradient is None else gradient.norm().item()
        assert abs(ours - (norm or 0.0)) <= gate, parameter


def test_full_gradients(shared):
    case, model = arrays(shared, "c2a_uni"), load(shared, "c2a")
    model(**forward_arguments(case)).loss.backward()
    reference = load_file(shared / "oracles" / "chronos" / "c2a_uni.grads.safetensors")
    total = torch.cat([gradient.flatten() for gradient in reference.values()]).norm()
    for name, parameter in model.named_parameters():
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert (ours - reference[name]).norm() <= 1e-5 * total, name


@pytest.mark.parametrize(("name", "checkpoint"), [("dummy_uni", "dummy-chronos2-model"), ("c2a_uni", "c2a"),
                                                  ("c2a_group", "c2a"), ("c2noreg_uni", "c2noreg")])  # fmt: skip
def test_hidden_states_at_valid_tokens(shared, name, checkpoint):
    case, model = arrays(shared, name), load(shared, checkpoint)
    output = model(**forward_arguments(case), output_hidden_states=True)
    valid = case["out_token_mask"] > 0
    np.testing.assert_array_equal(output.token_mask.numpy(), valid)
    hidden = output.last_hidden_state.detach().numpy()
    np.testing.assert_allclose(hidden[valid], case["out_last_hidden_state"][valid], rtol=1e-4, atol=1e-4)


def test_context_shorter_than_a_patch(shared):
    case, model = arrays(shared, "c2a_short"), load(shared, "c2a")
    with torch.no_grad():
        output = model(**forward_arguments(case))
    assert output.loss is None and output.objective is None
    assert_quantiles(output.quantile_preds.numpy(), case["out_quantile_preds"], case["out_scale"][..., None])


def test_adapter_equals_what_peft_merges(shared):
    case, model = arrays(shared, "c2a_lora"), load(shared, "c2a-lora")
    with torch.no_grad():
        output = model(**forward_arguments(case))
    scale = output.scale.numpy()[..., None]
    assert_quantiles(output.quantile_preds.numpy(), case["out_quantile_preds_merged"], scale)
    assert_quantiles(output.quantile_preds.numpy(), case["out_quantile_preds"], scale)
    assert output.loss.item() == pytest.approx(float(case["out_loss"]), rel=1e-5)


def test_lone_rows_leave_group_queries_and_keys_without_gradient(shared):
    case, model = arrays(shared, "c2a_singletons"), load(shared, "c2a")
    model(**forward_arguments(case)).loss.backward()
    for name, parameter in model.named_parameters():
        untouched = ".layer.1.self_attention.q." in name or ".layer.1.self_attention.k." in name
        assert (parameter.grad is None) == untouched, name
