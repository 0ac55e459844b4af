"""What a checkpoint holds of model and optimizer, put back into others."""

from __future__ import annotations

import torch
from torch import nn

from foreloom.models.common.count import by_shape
from foreloom.training.optimizer import FusedAdamW, OptimizerConfig, build_optimizer
from foreloom.training.state import read_tensors, write_tensors


def built(**settings) -> tuple[nn.Module, FusedAdamW]:
    layer = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    config = OptimizerConfig(**settings)
    return layer, build_optimizer(config, layer.named_parameters(), by_shape(layer), max_grad_norm=1.0)


def test_moments_come_from_the_checkpoint_and_settings_from_the_recipe() -> None:
    """A run that is resumed says what is new in its recipe, and so it must take effect."""
    layer, optimizer = built(weight_decay=0.1)
    layer(torch.randn(2, 3)).square().sum().backward()
    optimizer.update(torch.tensor([1.0, 1.0, 1.0]), 1e-2)
    other_layer, other = built(weight_decay=0.5, weight_decay_on="all_but_biases", betas=(0.8, 0.9), epsilon=1e-6)
    write_tensors(other_layer, other, read_tensors(layer, optimizer, None))
    for ours, theirs in zip(layer.parameters(), other_layer.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert {key: value.tolist() for key, value in optimizer.state[ours].items()} == {
            key: value.tolist() for key, value in other.state[theirs].items()
        }
    decayed, rest = other.param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.5, 0.0)
    assert all(
        (group["betas"], group["eps"], group["lr_scale"]) == ((0.8, 0.9), 1e-6, 1.0) for group in (decayed, rest)
    )
    assert [len(decayed["params"]), len(rest["params"])] == [2, 2]
