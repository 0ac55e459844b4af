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


def rates(num_updates: int, **settings) -> list[float]:
    config = OptimizerConfig(learning_rate=1.0, **settings)
    return [config.learning_rate_of(k, num_updates) for k in range(1, num_updates + 1)]


def test_linear_without_warmup_is_that_of_chronos_forecasting() -> None:
    assert rates(10, schedule="linear") == pytest.approx([1 - (k - 1) / 10 for k in range(1, 11)])


def test_shapes() -> None:
    assert rates(6, schedule="linear", warmup_steps=2) == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])
    assert rates(4, schedule="cosine") == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    assert rates(8, schedule="wsd", warmup_ratio=0.25, decay_steps=2) == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.5]
    )
    assert rates(5, schedule="constant", warmup_steps=1) == pytest.approx([0.5, 1, 1, 1, 1])
    assert rates(4, schedule="linear", final_ratio=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "cosine", "decay_steps": 10},
        {"schedule": "wsd"},
        {"warmup_steps": 1, "warmup_ratio": 0.1},
        {"schedule": "wsd", "decay_steps": 1, "decay_ratio": 0.1},
        {"schedule": "constant", "final_ratio": 0.1},
        {"learning_rate": 0},
        {"betas": (0.9, 1.0)},
    ],
)
def test_settings_without_effect_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError):
        OptimizerConfig(**settings)


def test_a_schedule_longer_than_the_run_is_told_with_what_to_set() -> None:
    with pytest.raises(ValueError, match="8 steps of warm-up and 4 of decay .*=10: lower optimizer.warmup_steps or "):
        rates(10, schedule="wsd", warmup_steps=8, decay_steps=4)
