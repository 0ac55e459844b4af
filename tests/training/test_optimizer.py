from __future__ import annotations

import pytest
import torch
from torch import nn

from foreloom.models.common.count import by_shape
from foreloom.training.optimizer import OptimizerConfig, build_optimizer


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 3)
        self.input_layernorm = nn.RMSNorm(3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.bias_table = nn.Embedding(4, 2)


@pytest.mark.parametrize(
    ("decay_on", "decayed"),
    [
        ("matrices", {"proj.weight", "bias_table.weight"}),
        ("all_but_biases", {"proj.weight", "input_layernorm.weight"}),
    ],
)
def test_weight_decay_reaches_the_parameters_it_names_and_no_others(decay_on: str, decayed: set[str]) -> None:
    layer = Layer()
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, weight_decay_on=decay_on)
    optimizer = build_optimizer(config, layer.named_parameters(), by_shape(layer), max_grad_norm=1.0)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)  # no gradient: what moves has decayed
    assert optimizer.update(torch.tensor([1.0, 0.0, 1.0]), 0.1) == 1
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if name in decayed else 1.0))


def test_a_choice_that_decides_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_decay_on: all_but_biases has no effect with weight_decay: 0"):
        OptimizerConfig(weight_decay=0, weight_decay_on="all_but_biases")
