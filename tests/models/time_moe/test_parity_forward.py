"""Forward, every loss and the gradients against the official code's own."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import torch
from time_moe_parity import CASES, MODELS, arrays, assert_close, forward_arguments, load, oracles

from foreloom.models.time_moe.architecture import SIZES, Architecture
from foreloom.models.time_moe.checkpoint import FOLDER, official_views
from foreloom.models.time_moe.objective import huber_by_position, mean_of_batch

HORIZONS = (1, 8, 32, 64)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_outputs_and_losses(shared, name, case):
    folder = oracles(shared) / "models" / name
    model, reference = load(folder), arrays(folder / "forward.npz")
    arguments = forward_arguments(reference, case)
    before = {key: value.clone() for key, value in arguments.items()}
    output = model(**arguments, output_hidden_states=True, output_router_logits=True)
    kept = arguments.get("attention_mask", torch.ones_like(arguments["input_ids"])).numpy() > 0

    assert_close(output.logits[kept], reference[f"{case}_logits_returned"][kept])
    if case == "plain":
        for ours, theirs in zip(output.hidden_states, reference["plain_hidden_states"], strict=True):
            assert_close(ours, theirs)
    else:
        assert_close(output.hidden_states[-1][kept], reference[f"{case}_last_hidden"][kept])
    if name == "dense":
        assert output.router_logits is None and output.aux_loss is None
    else:
        assert_close(output.router_logits[:, kept.flatten()], reference[f"{case}_router_logits"][:, kept.flatten()])
        assert output.aux_loss.item() == pytest.approx(float(reference[f"{case}_aux_loss"]), abs=1e-6)
    inputs = {key: value for key, value in arguments.items() if key in ("input_ids", "attention_mask")}
    predictions = [model(**inputs, max_horizon_length=horizon).logits for horizon in HORIZONS]
    for horizon, prediction in zip(HORIZONS, predictions, strict=True):
        assert_close(prediction[kept], reference[f"{case}_pred_h{horizon}"][kept])
    assert all(torch.equal(before[key], value) for key, value in arguments.items())

    if case == "left":  # its losses count what the model says of padding
        return
    assert output.loss.item() == pytest.approx(float(reference[f"{case}_loss_total"]), abs=1e-6)
    forecast_loss = output.tally["forecast_loss"]
    assert forecast_loss[0].item() == pytest.approx(float(reference[f"{case}_loss_forecast"]), abs=1e-6)
    for i, (horizon, prediction) in enumerate(zip(HORIZONS, predictions, strict=True)):
        mask = arguments.get("loss_masks", torch.ones_like(arguments["labels"]))
        terms = huber_by_position(
            prediction, arguments["labels"], mask, [horizon], counts_tail="loss_masks" not in arguments
        )
        assert mean_of_batch(terms).item() == pytest.approx(reference[f"{case}_loss_per_horizon"][i], abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_gradients(shared, name):
    folder = oracles(shared) / "models" / name
    model, reference = load(folder).train(), json.loads((folder / "grads.json").read_text())
    output = model(**forward_arguments(arrays(folder / "forward.npz"), "pad"))
    assert output.loss.item() == pytest.approx(reference["loss"], abs=1e-6)
    output.loss.backward()
    gradients = official_views({key: parameter.grad for key, parameter in model.named_parameters()})
    assert gradients.keys() == reference["grad_norms"].keys()
    for key, norm in reference["grad_norms"].items():
        assert gradients[key].norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7), key
    total = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm().item()
    assert total == pytest.approx(reference["global_grad_norm"], rel=1e-5)
    for key, gradient in arrays(folder / "grads_selected.npz").items():
        np.testing.assert_allclose(gradients[key], gradient, rtol=1e-4, atol=1e-6 * total)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_attention_and_feed_forward_of_the_first_layer(shared, name):
    folder = oracles(shared) / "models" / name
    model, reference = load(folder), arrays(folder / "forward.npz")
    layer = model.model.layers[0]
    seen = {}
    layer.self_attn.register_forward_hook(lambda module, inputs, output: seen.update(attn=(inputs[0], output)))
    layer.ffn_layer.register_forward_hook(lambda module, inputs, output: seen.update(ffn=(inputs[0], output)))
    model(torch.from_numpy(reference["input_ids"]))
    for part, (given, got) in seen.items():
        assert_close(given, reference[f"layer0_{part}_in"])
        assert_close(got[0] if isinstance(got, tuple) else got, reference[f"layer0_{part}_out"])
    assert len(seen) == 2


@torch.no_grad()
def test_the_whole_50m_model(shared):
    folder = oracles(shared) / "models" / "full50m_recipe"
    arch = Architecture.from_published(json.loads((folder / "config.json").read_text()))
    assert arch == Architecture(**SIZES["50m"])
    model = FOLDER.empty(arch).eval()
    model.protocol = "reference"
    weights = official_views(model.state_dict())
    for key, tensor in weights.items():
        tensor.copy_(torch.from_numpy(_recipe(key, tuple(tensor.shape))))
    for key, check in json.loads((folder / "recipe.json").read_text())["checks"].items():
        assert weights[key].double().sum().item() == pytest.approx(check["sum_f64"], rel=1e-6)

    reference = arrays(folder / "forward.npz")
    arguments = {key: torch.from_numpy(reference[key]) for key in ("input_ids", "labels")}
    output = model(**arguments, output_hidden_states=True, output_router_logits=True)
    assert_close(output.hidden_states[-1], reference["plain_last_hidden"])
    for layer in (0, 11):
        assert_close(output.router_logits[layer], reference[f"plain_router_logits_layer{layer}"])
    assert output.loss.item() == pytest.approx(float(reference["plain_loss_total"]), abs=1e-6)
    assert output.aux_loss.item() == pytest.approx(float(reference["plain_aux_loss"]), abs=1e-6)
    for horizon in HORIZONS:
        logits = model(arguments["input_ids"], max_horizon_length=horizon).logits
        assert_close(logits, reference[f"plain_pred_h{horizon}"])
    forecast = model.generate(arguments["input_ids"], max_new_tokens=96)[:, 96:]
    assert_close(forecast, reference["generate_new96"])


def _recipe(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights that recipe.json describes in words."""
    random = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(int(np.prod(shape)))
    r = random.astype(np.float32).reshape(shape)
    if key.endswith("norm.weight"):
        return 1 + 0.2 * r
    if key.endswith("bias"):
        return 0.3 * r
    if "embed_layer" in key:
        return r
    factor = 1.5 if key.endswith("ffn_layer.gate.weight") else 0.5 if key.startswith("lm_heads") else 1.0
    return (factor * r / np.sqrt(shape[1])).astype(np.float32)
