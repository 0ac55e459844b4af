"""What a checkpoint holds of model and optimizer, put back into others."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import nn

from foreloom.models.common.count import by_shape
from foreloom.training.optimizer import FusedAdamW, OptimizerConfig, build_optimizer
from foreloom.training.state import read_tensors, write_tensors

WSD = {"schedule": "wsd", "decay_ratio": 0.2}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "learning_rate": ({}, {"learning_rate": 3e-2}),
    "betas": ({}, {"betas": (0.5, 0.7)}),
    "epsilon": ({}, {"epsilon": 0.1}),
    "weight_decay": ({}, {"weight_decay": 0.9}),
    "weight_decay_on": ({"weight_decay": 0.9}, {"weight_decay": 0.9, "weight_decay_on": "all_but_biases"}),
    "schedule": ({}, {"schedule": "linear"}),
    "warmup_steps": ({}, {"warmup_steps": 6}),
    "warmup_ratio": ({}, {"warmup_ratio": 0.6}),
    "decay_steps": (WSD, {"schedule": "wsd", "decay_steps": 10}),
    "decay_ratio": (WSD, {"schedule": "wsd", "decay_ratio": 1.0}),
    "decay_shape": (WSD | {"decay_ratio": 1.0}, WSD | {"decay_ratio": 1.0, "decay_shape": "sqrt"}),
    "final_ratio": ({}, {"final_ratio": 0.5}),
    "momentum": ({"name": "sgd"}, {"name": "sgd", "momentum": 0.5}),
    "nesterov": ({"name": "sgd"}, {"name": "sgd", "nesterov": False}),
}
"""Setting -> a recipe, and what changes it in the recipe that goes on."""
NUM_UPDATES = 10


def built(**settings: Any) -> tuple[nn.Sequential, FusedAdamW]:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    config = OptimizerConfig(**settings)
    return layer, build_optimizer(config, layer.named_parameters(), by_shape(layer), max_grad_norm=0.0)


def update(layer: nn.Module, optimizer: FusedAdamW, number: int, settings: dict[str, Any]) -> None:
    optimizer.zero_grad()
    torch.manual_seed(number)
    layer(torch.randn(2, 3)).square().sum().backward()
    rate = OptimizerConfig(**settings).learning_rate_of(number, NUM_UPDATES)
    optimizer.update(torch.tensor([1.0, 1.0, 1.0]), rate)


def by_formula(layer: nn.Module, optimizer: FusedAdamW, number: int, settings: dict[str, Any]) -> list[torch.Tensor]:
    """The weights after an update of AdamW (Loshchilov and Hutter, 2019, algorithm 2) or of SGD with these settings."""
    config = OptimizerConfig(**settings)
    rate, (beta1, beta2) = config.learning_rate_of(number, NUM_UPDATES), config.betas
    torch.manual_seed(number)
    gradients = torch.autograd.grad(layer(torch.randn(2, 3)).square().sum(), list(layer.parameters()))
    after = []
    for (name, weight), g in zip(layer.named_parameters(), gradients, strict=True):
        moments = optimizer.state[weight]
        decays = "bias" not in name if config.weight_decay_on == "all_but_biases" else weight.ndim > 1
        kept = weight.detach() * (1 - rate * config.weight_decay * decays)
        if config.name == "sgd":
            momentum = config.momentum * moments["momentum_buffer"] + g
            after.append(kept - rate * (g + config.momentum * momentum if config.nesterov else momentum))
            continue
        m = beta1 * moments["exp_avg"] + (1 - beta1) * g
        v = beta2 * moments["exp_avg_sq"] + (1 - beta2) * g**2
        after.append(kept - rate * m / (1 - beta1**number) / ((v / (1 - beta2**number)).sqrt() + config.epsilon))
    return after


@pytest.mark.parametrize("setting", [field.name for field in fields(OptimizerConfig) if field.name != "name"])
def test_moments_come_from_the_checkpoint_and_every_setting_from_the_recipe(setting: str) -> None:
    """A run that is resumed says what is new in its recipe, and so it must take effect."""
    before, after = CHANGES[setting]
    layer, optimizer = built(**before)
    for number in (1, 2):
        update(layer, optimizer, number, before)
    state = read_tensors(layer, optimizer, None)
    other_layer, other = built(**after)
    write_tensors(other_layer, other, state)
    for ours, theirs in zip(layer.parameters(), other_layer.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert {key: value.tolist() for key, value in optimizer.state[ours].items()} == {
            key: value.tolist() for key, value in other.state[theirs].items()
        }
    unchanged, expected = (by_formula(layer, optimizer, 3, settings) for settings in (before, after))
    assert any(not torch.allclose(a, b, rtol=1e-6, atol=0) for a, b in zip(unchanged, expected, strict=True))
    update(other_layer, other, 3, after)
    for weight, wanted in zip(other_layer.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.detach(), wanted, rtol=1e-6, atol=1e-8)
