"""The recipe's `model` section and what is built from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreloom.models.family import WindowLengths
from foreloom.models.time_moe.architecture import TimeMoeConfig, flops_per_row
from foreloom.models.time_moe.family import FAMILY


def build(context_length: int = 20, prediction_length: int = 4, **fields):
    return FAMILY.build(TimeMoeConfig(**fields), WindowLengths(context_length, prediction_length))


@pytest.fixture
def folder(tiny_time_moe, tmp_path):
    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path)
    return str(tmp_path)


def test_a_size_and_what_changes_it():
    model = build(
        size="test", num_experts=6, horizon_lengths=(1, 5), num_key_value_heads=2, attn_implementation="eager"
    )
    arch = model.architecture
    assert (arch.num_hidden_layers, arch.hidden_size, arch.num_experts, arch.horizon_lengths) == (2, 64, 6, (1, 5))
    assert model.attn_implementation == "eager" and model.protocol == "standard"
    assert model.model.layers[0].self_attn.k_proj.out_features == 32
    implied = TimeMoeConfig(size="test").implied()
    assert implied["num_key_value_heads"] == 4 and implied["router_aux_loss_factor"] == 0.02
    assert "num_experts" not in TimeMoeConfig(size="test", use_dense=True).implied()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "set either size"),
        ({"size": "test", "pretrained": "here"}, "set either size"),
        ({"pretrained": "here", "hidden_size": 64, "num_experts": 4}, "hidden_size, num_experts cannot be set"),
        ({"size": "test", "use_dense": True, "num_experts": 4}, "num_experts: a model with use_dense has no experts"),
        ({"size": "test", "use_dense": True, "balance": "none"}, "balance: a model with use_dense"),
        ({"size": "test", "use_dense": True, "router_z_loss_factor": 0.1}, "router_z_loss_factor: a model"),
        ({"size": "test", "balance_rate": 0.01}, "balance_rate has no effect without"),
        ({"size": "test", "balance": "bias", "router_aux_loss_factor": 0.1}, "router_aux_loss_factor has no effect"),
    ],
)
def test_settings_that_contradict_each_other(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        TimeMoeConfig(**fields)


def test_windows_that_fit_the_maximum(folder):
    build(4096, 1, size="test")
    with pytest.raises(ValueError, match=r"context_length 4096 and data\.prediction_length 2 make windows of 4097"):
        build(4096, 2, size="test")
    build(120, 9, pretrained=folder)
    with pytest.raises(ValueError, match="max_position_embeddings is 128"):
        build(120, 10, pretrained=folder)
    assert build(120, 10, pretrained=folder, max_position_embeddings=200).architecture.max_position_embeddings == 200
    with pytest.raises(ValueError, match="is 64 and the checkpoint has 128"):
        build(pretrained=folder, max_position_embeddings=64)


def test_balance_of_a_pretrained_model(folder):
    kept = build(pretrained=folder)
    assert kept.architecture.router_aux_loss_factor == 0.02 and kept.balance_rate == 0
    assert build(pretrained=folder, router_aux_loss_factor=0.1).architecture.router_aux_loss_factor == 0.1
    assert build(pretrained=folder, balance="none").architecture.router_aux_loss_factor == 0
    biased = build(pretrained=folder, balance="bias")
    assert biased.architecture.router_aux_loss_factor == 0 and biased.balance_rate == 0.001
    assert [layer.ffn_layer.expert_bias.tolist() for layer in biased.model.layers] == [[0.0] * 4] * 2
    x = torch.randn(2, 20)
    assert torch.equal(biased.eval()(x).logits, kept.eval()(x).logits)


def test_balance_that_a_checkpoint_was_trained_with(folder, tmp_path):
    for balance, then in (("bias", None), ("none", None), ("bias", "aux_loss"), ("none", "bias")):
        first = build(pretrained=folder, balance=balance)
        FAMILY.save(first, first.state_dict(), tmp_path / "again")
        model = build(pretrained=str(tmp_path / "again"), balance=then)
        assert (model.balance_rate > 0) == ((then or balance) == "bias")
        assert model.architecture.router_aux_loss_factor == (0.02 if then == "aux_loss" else 0)
    model = build(pretrained=str(tmp_path / "again"), router_aux_loss_factor=0.3)
    assert (model.architecture.router_aux_loss_factor, model.balance_rate) == (0.3, 0)


def test_a_dense_checkpoint_has_no_experts_to_balance(tmp_path):
    dense = build(size="test", use_dense=True)
    FAMILY.initialize(dense, 0)
    FAMILY.save(dense, dense.state_dict(), tmp_path)
    for fields in ({"balance": "bias"}, {"router_aux_loss_factor": 0.1}, {"router_z_loss_factor": 0.1}):
        with pytest.raises(ValueError, match="is a dense model and has no experts"):
            build(pretrained=str(tmp_path), **fields)
    x = torch.randn(2, 9)
    assert torch.equal(build(pretrained=str(tmp_path)).eval()(x).logits, dense.eval()(x).logits)
    output = dense(x, labels=x)
    assert output.aux_loss is None and output.tally.keys() == {"forecast_loss"}
    assert FAMILY.experts.figures(dense, {"forecast_loss": np.array([3.0, 2.0])}) == {"forecast_loss": 1.5}
    FAMILY.experts.after_update(dense, output.tally, torch.ones(()))


def test_biases_follow_the_load():
    model = build(size="test", balance="bias", balance_rate=0.25)
    FAMILY.initialize(model, 0)
    tally = {"expert_load": torch.tensor([[4, 0, 2, 2], [1, 1, 1, 5]])}
    bias = lambda: [layer.ffn_layer.expert_bias.tolist() for layer in model.model.layers]
    FAMILY.experts.after_update(model, tally, torch.tensor(0.0))
    assert bias() == [[0.0] * 4] * 2
    FAMILY.experts.after_update(model, tally, torch.tensor(1.0))
    assert bias() == [[-0.25, 0.25, 0.0, 0.0], [0.25, 0.25, 0.25, -0.25]]


def test_figures():
    model = build(size="test")
    tally = {"forecast_loss": np.array([6.0, 4.0]), "aux_loss": np.array([10.0, 4.0])}
    even = FAMILY.experts.figures(model, tally | {"expert_load": np.full((2, 4), 3)})
    assert even == pytest.approx(
        {"forecast_loss": 1.5, "aux_loss": 2.5, "aux_excess": 0.5, "expert_entropy": 1.0, "dead_experts": 0}
    )
    uneven = FAMILY.experts.figures(model, tally | {"expert_load": np.array([[6, 6, 0, 0], [12, 0, 0, 0]])})
    assert uneven["expert_entropy"] == pytest.approx(0.25) and uneven["dead_experts"] == 5


def test_flops_are_six_a_parameter_and_token_and_attention_besides():
    model = build(size="50m")
    arch, num_steps = model.architecture, 512
    active = 49_651_200 - sum(p.numel() for n, p in model.named_parameters() if n.endswith(("bias", "norm.weight")))
    attention = arch.num_hidden_layers * num_steps * arch.hidden_size
    assert flops_per_row(model, WindowLengths(512, 1)) == pytest.approx(6 * num_steps * (active + attention), rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"input_ids": torch.ones(2, 3, 2)}, r"input_ids must be \(rows, steps\)"),
        ({"labels": torch.ones(2, 8)}, r"labels has shape \(2, 8\) and input_ids \(2, 9\)"),
        ({"loss_masks": torch.ones(1, 9)}, "loss_masks has shape"),
        ({"segment_ids": torch.ones(9)}, "segment_ids has shape"),
        ({"position_ids": torch.ones(2, 4)}, "position_ids has shape"),
        ({"attention_mask": torch.ones(2, 4)}, r"attention_mask has shape \(2, 4\); expected \(2, 9\)"),
        ({"labels": None, "max_horizon_length": 0}, "max_horizon_length must be at least 1"),
    ],
)
def test_shapes_that_do_not_fit(tiny_time_moe, wrong, sentence):
    arguments = {"input_ids": torch.ones(2, 9), "labels": torch.ones(2, 9)}
    with pytest.raises(ValueError, match=sentence):
        tiny_time_moe(**(arguments | wrong))


def test_three_dimensions_are_as_two(tiny_time_moe):
    x = torch.randn(2, 9)
    flat = tiny_time_moe(x, labels=x)
    deep = tiny_time_moe(x[..., None], labels=x[..., None], loss_masks=torch.ones(2, 9, 1))
    assert torch.equal(flat.logits, deep.logits) and torch.equal(flat.loss, deep.loss)
