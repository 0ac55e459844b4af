from __future__ import annotations

import pytest
import torch
from torch import nn

from foreloom.models.common.count import by_shape
from foreloom.training.optimizer import OptimizerConfig, build_optimizer, orthogonalised


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
    with pytest.raises(ValueError, match="momentum has no effect with name: adamw"):
        OptimizerConfig(momentum=0.5)
    with pytest.raises(ValueError, match="epsilon has no effect with name: sgd"):
        OptimizerConfig(name="sgd", epsilon=1e-6)


def descend(optimizer, layer: Layer, target: torch.Tensor, num_steps: int, update) -> torch.Tensor:
    """The projection after some steps towards `target`."""
    for _ in range(num_steps):
        optimizer.zero_grad()
        ((layer.proj.weight - target).square().sum() + layer.proj.bias.square().sum()).backward()
        update(optimizer)
    return layer.proj.weight.detach()


@pytest.mark.parametrize("name", ["sgd", "muon"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_and_sgd_are_those_of_torch(name: str, nesterov: bool) -> None:
    ours, theirs = Layer(), Layer()
    theirs.load_state_dict(ours.state_dict())
    target = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    config = OptimizerConfig(name=name, weight_decay=0, momentum=0.9, nesterov=nesterov)
    optimizer = build_optimizer(config, ours.named_parameters(), by_shape(ours), max_grad_norm=0.0)
    if name == "sgd":
        reference = torch.optim.SGD(theirs.parameters(), lr=0.02, momentum=0.9, nesterov=nesterov)
    else:
        options = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.0}
        reference = torch.optim.Muon([theirs.proj.weight], adjust_lr_fn="match_rms_adamw", **options)
    totals = torch.tensor([1.0, 0.0, 1.0])
    moved = descend(optimizer, ours, target, 5, lambda optimizer: optimizer.update(totals, 0.02))
    expected = descend(reference, theirs, target, 5, lambda optimizer: optimizer.step())
    # Torch orthogonalises in bfloat16, and its momentum of Muon is a mean where ours is a sum, which goes alike.
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if name == "sgd" else {"rtol": 0, "atol": 2e-3}
    torch.testing.assert_close(moved, expected, **tolerance)


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_a_step_that_is_not_finite_changes_nothing(name: str) -> None:
    layer = Layer()
    optimizer = build_optimizer(
        OptimizerConfig(name=name), layer.named_parameters(), by_shape(layer), max_grad_norm=1.0
    )
    before = {key: x.clone() for key, x in layer.state_dict().items()}
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    assert optimizer.update(torch.tensor([1.0, torch.nan, 1.0]), 0.1) == 0
    assert all(torch.equal(x, before[key]) for key, x in layer.state_dict().items())
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert optimizer.update(torch.tensor([1.0, 1.0, 1.0]), 0.1) == 1
    once = {key: x.clone() for key, x in layer.state_dict().items()}
    layer.load_state_dict(before)
    fresh = build_optimizer(OptimizerConfig(name=name), layer.named_parameters(), by_shape(layer), max_grad_norm=1.0)
    fresh.update(torch.tensor([1.0, 1.0, 1.0]), 0.1)
    assert all(torch.equal(x, once[key]) for key, x in layer.state_dict().items())  # no moment was kept of it


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    stack = torch.randn(3, 12, 40, generator=generator)
    for matrix in (stack, stack.mT):
        values = torch.linalg.svdvals(orthogonalised(matrix)) / (0.2 * 40**0.5)
        assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(orthogonalised(stack)[1], orthogonalised(stack[1]))


def rates(num_updates: int, **settings) -> list[float]:
    config = OptimizerConfig(learning_rate=1.0, **settings)
    return [config.learning_rate_of(k, num_updates) for k in range(1, num_updates + 1)]


def test_linear_without_warmup_is_that_of_chronos_forecasting() -> None:
    assert rates(10, schedule="linear") == pytest.approx([1 - (k - 1) / 10 for k in range(1, 11)])


def test_a_share_of_the_steps_is_what_it_is_on_paper() -> None:
    """0.07 * 100 is 7.000000000000001 in a computer."""
    assert rates(100, schedule="constant", warmup_ratio=0.07)[6:8] == pytest.approx([7 / 8, 1.0])


def test_shapes() -> None:
    assert rates(6, schedule="linear", warmup_steps=2) == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])
    assert rates(4, schedule="cosine") == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    assert rates(8, schedule="wsd", warmup_ratio=0.25, decay_steps=2) == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.5]
    )
    cooled = rates(8, schedule="wsd", decay_steps=4, decay_shape="sqrt")
    assert cooled == pytest.approx([1, 1, 1, 1, 1, 1 - 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5])
    assert rates(5, schedule="constant", warmup_steps=1) == pytest.approx([0.5, 1, 1, 1, 1])
    assert rates(4, schedule="linear", final_ratio=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "cosine", "decay_steps": 10},
        {"schedule": "wsd"},
        {"decay_shape": "sqrt"},
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
