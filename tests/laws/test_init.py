"""Law: an initial weight is a function of the seed and the parameter's name; no rank, order or other layer matters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foreloom.data.text.config import TextSource
from foreloom.data.text.section import TextData
from foreloom.models.family import WindowLengths
from foreloom.models.registry import get


def chronos2(num_layers: int, seed: int) -> nn.Module:
    family = get("chronos2")
    config = family.config(size="test", d_model=32, d_kv=8, d_ff=64, num_heads=4, num_layers=num_layers)
    model = family.build(config, WindowLengths(32, 8))
    family.initialize(model, seed)
    return model


def chronos_bolt(num_layers: int, seed: int) -> nn.Module:
    family = get("chronos_bolt")
    config = family.config(size="test", d_model=32, d_kv=8, d_ff=64, num_layers=num_layers, num_decoder_layers=2)
    model = family.build(config, WindowLengths(32, 8))
    family.initialize(model, seed)
    return model


def chronos_t5(num_layers: int, seed: int) -> nn.Module:
    family = get("chronos_t5")
    config = family.config(
        size="tiny", d_model=32, d_kv=8, d_ff=64, num_layers=num_layers, num_decoder_layers=2, n_tokens=64, use_moe=True
    )
    model = family.build(config, WindowLengths(32, 8))
    family.initialize(model, seed)
    return model


def time_moe(num_layers: int, seed: int) -> nn.Module:
    family = get("time_moe")
    config = family.config(size="test", hidden_size=32, intermediate_size=64, num_hidden_layers=num_layers)
    model = family.build(config, WindowLengths(32, 8))
    family.initialize(model, seed)
    return model


def decoder(num_layers: int, seed: int) -> nn.Module:
    family = get("decoder")
    text = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=32)
    model = family.build(family.config(size="test", num_layers=num_layers, init="xavier"), text)
    family.initialize(model, seed)
    return model


def lstm(num_layers: int, seed: int) -> nn.Module:
    family = get("lstm")
    text = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=32)
    model = family.build(family.config(size="test", num_layers=num_layers), text)
    family.initialize(model, seed)
    return model


@pytest.mark.parametrize("build", [chronos2, chronos_bolt, chronos_t5, time_moe, decoder, lstm])
def test_weights_depend_on_seed_and_name_only(build) -> None:
    torch.manual_seed(1)
    two_layers = dict(build(2, seed=7).named_parameters())
    torch.manual_seed(2)
    three_layers = dict(build(3, seed=7).named_parameters())
    assert two_layers.keys() < three_layers.keys()
    for name, parameter in two_layers.items():
        assert torch.equal(parameter, three_layers[name]), name
    other_seed = dict(build(2, seed=8).named_parameters())
    random = [name for name, parameter in two_layers.items() if parameter.unique().numel() > 2]
    assert len(random) > 4
    assert not any(torch.equal(two_layers[name], other_seed[name]) for name in random)
    ends = (
        "mlp.wi.weight",
        "layer.1.DenseReluDense.wi.weight",
        "experts.down_proj",
        "feed_forward.input.weight",
        "weight_ih",
    )
    same_shape = [n for n in random if n.endswith(ends)]
    assert len(same_shape) == 2 and not torch.equal(*(two_layers[name] for name in same_shape))


def test_experts_have_the_values_of_their_own_names() -> None:
    """So a layer's experts start alike however they are stored, and a further one changes no other."""
    heads = {"size": "tiny", "d_model": 32, "n_tokens": 64, "use_moe": True}
    for name, settings, of in (
        ("time_moe", {"size": "test"}, "model.layers.1.ffn_layer.experts.gate_up_proj"),
        ("chronos_t5", heads, "moe.experts.head_weight"),
    ):
        stacks = []
        for number in (4, 6):
            model = get(name).build(get(name).config(**settings, num_experts=number), WindowLengths(32, 8))
            get(name).initialize(model, 7)
            stacks.append(model.state_dict()[of])
        assert torch.equal(stacks[0], stacks[1][:4]) and not torch.equal(stacks[1][4], stacks[1][5])
