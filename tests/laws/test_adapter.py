"""Law: a model with adapters computes what the merged model computes, starts as its base, trains nothing else, and is
read back from the folder that PEFT knows."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from made_windows import windows_of

from foreloom.data.forecast_input import forecast_input
from foreloom.models import registry
from foreloom.models.common.lora import (
    AdapterConfig,
    adapter_alone,
    attach_adapter,
    check_base,
    merged,
    write_adapter,
)
from foreloom.models.lookbacks import forecaster_of

FAMILIES = ("chronos2", "chronos_bolt", "chronos_t5", "time_moe")
CONFIG = AdapterConfig(kind="lora", rank=3, alpha=6.0)
CPU = torch.device("cpu")


@pytest.fixture(params=FAMILIES)
def family_and_base(request):
    return registry.get(request.param), request.getfixturevalue(f"tiny_{request.param}")


def rows(num_rows: int, length: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(num_rows, length)).cumsum(1).astype(np.float32)


def loss_of(family, module) -> torch.Tensor:
    arguments = family.batch(module, windows_of(rows(6, 104)), CPU)
    output = module(**arguments)
    return output.objective.sum / output.objective.count


def forecasts_of(family, module) -> np.ndarray:
    inputs = [forecast_input(row[None], {}, {}, 12) for row in rows(40, 90)]
    return np.stack(forecaster_of(family, module.eval()).predict_quantiles(inputs, 12, (0.1, 0.5, 0.9)))


def test_adapted_merged_and_read_back_are_one_model(family_and_base, tmp_path):
    family, base = family_and_base
    family.save(base, base.state_dict(), tmp_path / "base")
    adapted = family.load(tmp_path / "base")
    attach_adapter(adapted, CONFIG, family.lora, seed=1)
    np.testing.assert_allclose(forecasts_of(family, adapted), forecasts_of(family, base), rtol=1e-4, atol=1e-5)

    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all(name.endswith(("lora_A", "lora_B")) for name in trained)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in trained.items():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.3, generator=generator)
    plain = family.load(tmp_path / "base")
    plain.load_state_dict(merged(adapted.state_dict(), CONFIG.scale))
    expected = forecasts_of(family, plain)
    assert np.abs(expected - forecasts_of(family, base)).max() > 1e-2
    np.testing.assert_allclose(forecasts_of(family, adapted), expected, rtol=1e-4, atol=1e-4)

    write_adapter(tmp_path / "adapter", CONFIG, family.lora, str(tmp_path / "base"), adapted.state_dict())
    again = registry.recognise(tmp_path / "adapter").load(tmp_path / "adapter")
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)

    other = {name: x + 0.01 if x.dim() > 1 else x for name, x in base.state_dict().items()}
    family.save(base, other, tmp_path / "base")
    with pytest.raises(ValueError, match="was trained on other weights than those of its base"):
        family.load(tmp_path / "adapter")

    torch.manual_seed(0)
    loss = loss_of(family, adapted.eval())
    loss.backward()
    torch.testing.assert_close(loss, loss_of(family, plain.eval()), rtol=1e-5, atol=1e-6)
    gradients = {name: p.grad for name, p in adapted.named_parameters()}
    # Rows that are alone leave the group attention's queries and keys without a gradient.
    asked = {name: x for name, x in gradients.items() if ".layer.1.self_att" not in name}
    assert all((gradient is None) == (name not in trained) for name, gradient in asked.items())
    # By the chain rule, dA = s B^T dW.
    plain.requires_grad_(True)
    loss_of(family, plain).backward()
    for name, gradient in gradients.items():
        if name.endswith(".lora_A") and ".parametrizations." not in name and gradient is not None:
            prefix = name.removesuffix("lora_A")
            dense = plain.get_parameter(f"{prefix}weight").grad
            expected = CONFIG.scale * adapted.get_parameter(f"{prefix}lora_B").T @ dense
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_each_expert_of_a_stack_is_published(tiny_time_moe):
    family = registry.get("time_moe")
    attach_adapter(tiny_time_moe, CONFIG, family.lora, seed=1)
    names = adapter_alone(tiny_time_moe.state_dict(), family.lora)
    prefix = "base_model.model.model.layers.1.ffn_layer.experts.3."
    shapes = {name.removeprefix(prefix): tuple(x.shape) for name, x in names.items() if name.startswith(prefix)}
    width = tiny_time_moe.architecture.hidden_size
    inner = shapes["down_proj.lora_A.weight"][1]
    assert shapes == {
        "gate_proj.lora_A.weight": (3, width), "gate_proj.lora_B.weight": (inner, 3),
        "up_proj.lora_A.weight": (3, width), "up_proj.lora_B.weight": (inner, 3),
        "down_proj.lora_A.weight": (3, inner), "down_proj.lora_B.weight": (width, 3),
    }  # fmt: skip


def test_what_an_adapter_cannot_hold_is_told(family_and_base, tmp_path):
    family, base = family_and_base
    family.save(base, base.state_dict(), tmp_path)
    adapted = family.load(tmp_path)
    attach_adapter(adapted, CONFIG, family.lora, seed=1)
    if family.name != "chronos_t5":
        check_base(adapted, tmp_path)
        return
    # The router's moments move with the data it sees, and an adapter has no place for them.
    with pytest.raises(ValueError, match=r"logit_moments\.mean and the like move .* set adapter\.export: merged"):
        check_base(adapted, tmp_path)


def test_start_depends_on_name_and_seed_alone(tiny_chronos2):
    family = registry.get("chronos2")
    attach_adapter(tiny_chronos2, CONFIG, family.lora, seed=1)
    name = "encoder.block.1.layer.0.self_attention.q.lora_A"
    first = tiny_chronos2.get_parameter(name).clone()
    assert 0.5 < first.std() * (3 * first.shape[1]) ** 0.5 < 1.5
    other = dataclasses.replace(CONFIG, modules=("layer.0.self_attention.q",))
    plain = family.build(family.config(size="test", d_model=32, d_kv=8, d_ff=64), _Lengths())
    attach_adapter(plain, other, family.lora, seed=1)
    assert torch.equal(plain.get_parameter(name), first)
    assert sum(p.requires_grad for p in plain.parameters()) == 2 * 2  # A and B of q in two blocks


class _Lengths:
    context_length, prediction_length = 96, 32


def test_dropout_is_the_adapters_alone(tiny_chronos2):
    family = registry.get("chronos2")
    attach_adapter(tiny_chronos2, dataclasses.replace(CONFIG, dropout=0.5), family.lora, seed=1)
    with torch.no_grad():
        for name, parameter in tiny_chronos2.named_parameters():
            if name.endswith("lora_B"):
                parameter.fill_(0.1)
    for layer in tiny_chronos2.modules():
        if hasattr(layer, "dropout_rate"):
            layer.dropout_rate = 0.0
    losses = {float(loss_of(family, tiny_chronos2.train()).detach()) for _ in range(3)}
    assert len(losses) == 3
    assert len({float(loss_of(family, tiny_chronos2.eval()).detach()) for _ in range(2)}) == 1


def test_what_fits_nothing_is_told(tiny_chronos2, tmp_path):
    hooks = registry.get("chronos2").lora
    with pytest.raises(ValueError, match=r"adapter\.modules: 'attn\.q' fits no matrix .*self_attention\.q"):
        attach_adapter(tiny_chronos2, AdapterConfig(kind="lora", modules=("attn.q",)), hooks, seed=0)
    for modules in ((), ("c_attn",)):  # a causal Chronos-T5, as GPT-2, has matrices of a kind of their own
        with pytest.raises(ValueError, match="this model has no matrix that lora fits"):
            attach_adapter(torch.nn.LayerNorm(3), AdapterConfig(kind="lora", modules=modules), hooks, seed=0)
    causal = registry.get("chronos_t5").config(size="tiny", model_type="causal", d_model=32, num_heads=4, num_layers=1)
    with pytest.raises(ValueError, match="this model has no matrix that lora fits; training.train_only trains a part"):
        attach_adapter(registry.get("chronos_t5").build(causal, _Lengths()), CONFIG, hooks, seed=0)
    with pytest.raises(ValueError, match="name the matrices to adapt; the model has none of the usual"):
        attach_adapter(torch.nn.Sequential(torch.nn.Linear(2, 2)), CONFIG, hooks, seed=0)
    with pytest.raises(ValueError, match="no effect with kind: none"):
        AdapterConfig(rank=4)


def test_peft_reads_what_we_write(tiny_chronos_t5, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    family = registry.get("chronos_t5")
    config = family.config(size="tiny", d_model=32, d_kv=8, d_ff=64, num_layers=2, n_tokens=64, initializer_factor=1.0)
    base = family.build(config, _Lengths())
    family.initialize(base, 0)
    family.save(base, base.state_dict(), tmp_path / "base")
    adapted = family.load(tmp_path / "base")
    attach_adapter(adapted, CONFIG, family.lora, seed=1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.3)
    write_adapter(tmp_path / "adapter", CONFIG, family.lora, str(tmp_path / "base"), adapted.state_dict())
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 3
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    tokens = torch.randint(2, 64, (3, 20), generator=torch.Generator().manual_seed(0))
    arguments = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "decoder_input_ids": tokens[:, :5]}
    torch.testing.assert_close(adapted.eval()(**arguments).logits, theirs(**arguments).logits, rtol=1e-4, atol=1e-4)
