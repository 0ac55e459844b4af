"""The mixture of experts against the definition, token by token."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foreloom.models.common import expert_kernels
from foreloom.models.common.expert_kernels import order_by_expert, run_experts
from foreloom.models.common.layers import GatedFeedForward, silu_times
from foreloom.models.common.moe import MixtureOfExperts, balance_bias

WIDTH, EXPERT_WIDTH = 16, 24


def by_definition(x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor) -> Tensor:
    rows = []
    for x, experts, weights in zip(x_ND, expert_NK, weight_NK, strict=True):
        parts = []
        for expert, weight in zip(experts.tolist(), weights, strict=True):
            gate, up = (gate_up_EGD[expert] @ x).chunk(2)
            parts.append(weight * (down_EDF[expert] @ (F.silu(gate) * up)))
        rows.append(torch.stack(parts).sum(0))
    return torch.stack(rows)


def arguments(
    num_tokens: int,
    top_k: int,
    *,
    num_experts: int = 6,
    num_idle: int = 2,
    width: int = WIDTH,
    expert_width: int = EXPERT_WIDTH,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, ...]:
    """x, experts, weights, gate and up, down; the last `num_idle` experts get no token."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)
    probability = draw(num_tokens, num_experts - num_idle).softmax(-1)
    weight, expert = probability.topk(top_k, dim=-1)
    leaves = (
        draw(num_tokens, width),
        weight.clone(),
        draw(num_experts, 2 * expert_width, width) / 4,
        draw(num_experts, width, expert_width) / 4,
    )
    x, weight, gate_up, down = (y.requires_grad_() for y in leaves)
    return x, expert, weight, gate_up, down


def value_and_gradients(function, x: Tensor, expert: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    y = function(x, expert, *others)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return (y, *torch.autograd.grad(y, (x, *others), direction))


def grouped(x: Tensor, expert: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The path of CUDA devices; the grouped product has a slow form on CPUs."""
    return expert_kernels._run_grouped(x, weight, gate_up, down, order_by_expert(expert))


@pytest.mark.parametrize("function", [run_experts, grouped])
@pytest.mark.parametrize("num_tokens, top_k", [(1, 1), (1, 3), (40, 1), (40, 2), (40, 3)])
def test_experts_and_all_gradients(function, num_tokens, top_k):
    case = arguments(num_tokens, top_k)
    expected = value_and_gradients(by_definition, *case)
    torch.testing.assert_close(value_and_gradients(function, *case), expected, rtol=1e-5, atol=1e-6)
    for gradient in value_and_gradients(function, *case)[3:]:
        assert torch.all(gradient[-2:] == 0)  # idle experts: weight decay still acts on them, so not None


def test_gradients_agree_with_finite_differences():
    x, expert, *others = arguments(4, 2, num_experts=4, num_idle=1, width=4, expert_width=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, *others: run_experts(x, expert, *others), (x, *others))
    gate, up = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(silu_times, (gate, up))


def test_without_gradients_the_bits_are_the_same():
    case = arguments(40, 2)
    with torch.no_grad():
        silent = run_experts(*case)
    assert torch.equal(silent, run_experts(*case))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_half_precision_and_routes_in_float32(dtype):
    layer, x = mixture(top_k=2, shared_width=32), tokens(30)
    expected, expected_routing = layer(x)
    with torch.autocast("cpu", dtype=dtype):
        y, routing = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == dtype and routing.logits_NE.dtype == torch.float32
    assert torch.equal(routing.expert_NK, expected_routing.expert_NK)
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())


def mixture(top_k: int, num_experts: int = 5, **options) -> MixtureOfExperts:
    torch.manual_seed(0)
    layer = MixtureOfExperts(WIDTH, EXPERT_WIDTH, num_experts, top_k, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shared_width", [None, 32])
def test_layer(normalize, shared_width):
    layer = mixture(2, shared_width=shared_width, normalize_weights=normalize)
    x = tokens(3, 7)
    y, routing = layer(x)
    flat = x.flatten(0, 1)
    weight, expert = (flat @ layer.gate.weight.T).softmax(-1).topk(2)
    if normalize:
        weight = weight / weight.sum(-1, keepdim=True)
    expected = by_definition(flat, expert, weight, layer.experts.gate_up_proj, layer.experts.down_proj)
    if shared_width:
        shared = layer.shared_expert
        hidden = F.silu(shared.gate_proj(flat)) * shared.up_proj(flat)
        expected = expected + (flat @ layer.shared_expert_gate.weight.T).sigmoid() * shared.down_proj(hidden)
    torch.testing.assert_close(y, expected.view_as(x), rtol=1e-5, atol=1e-6)
    assert torch.equal(routing.expert_NK, expert)
    torch.testing.assert_close(routing.logits_NE, flat @ layer.gate.weight.T)


def test_names_of_the_state_dict():
    assert set(mixture(2, shared_width=32, has_bias=True).state_dict()) == {
        "gate.weight",
        "experts.gate_up_proj",
        "experts.down_proj",
        "shared_expert.gate_proj.weight",
        "shared_expert.up_proj.weight",
        "shared_expert.down_proj.weight",
        "shared_expert_gate.weight",
        "expert_bias",
    }
    with pytest.raises(ValueError, match="6 of 5 experts"):
        mixture(6)


def test_the_bias_chooses_and_does_not_weigh():
    layer, x = mixture(1, has_bias=True), tokens(20)
    layer.expert_bias[3] = 2.0  # more than any probability
    y, routing = layer(x)
    assert torch.all(routing.expert_NK == 3)
    probability = (x @ layer.gate.weight.T).softmax(-1)[:, 3:4]
    alone = by_definition(x, routing.expert_NK, probability, layer.experts.gate_up_proj, layer.experts.down_proj)
    torch.testing.assert_close(y, alone, rtol=1e-5, atol=1e-6)


def test_balancing_by_bias():
    bias, load = torch.tensor([0.0, 0.1, 0.0]), torch.tensor([5, 0, 1])
    balance_bias(bias, load, 0.5, torch.tensor(0.0))
    assert bias.tolist() == pytest.approx([0.0, 0.1, 0.0])
    balance_bias(bias, load, 0.5, torch.tensor(1.0))
    assert bias.tolist() == pytest.approx([-0.5, 0.6, 0.5])
    layer, x = mixture(1, has_bias=True), tokens(400)
    layer.gate.weight.data[0] += 0.5 * x.mean(0).sign()

    def load_of() -> Tensor:
        return layer(x)[1].expert_NK.flatten().bincount(minlength=5)

    before = load_of()
    for _ in range(200):
        balance_bias(layer.expert_bias, load_of(), 0.002, torch.tensor(1.0))
    after = load_of()
    assert before.max() > 120 and after.max() < 100 and after.min() > 60  # 80 is even


@pytest.mark.parametrize("wrap", ["checkpoint", "compile"])
def test_recomputed_and_compiled(wrap):
    plain = mixture(2, shared_width=32, has_bias=True)
    wrapped = copy.deepcopy(plain)
    x = tokens(3, 7)
    # "aot_eager" traces forward and backward as the default backend does, without its compiler.
    compiled = torch.compile(wrapped, backend="aot_eager") if wrap == "compile" else wrapped
    run = (lambda x: checkpoint(wrapped, x, use_reentrant=False)) if wrap == "checkpoint" else compiled
    for layer, call in ((plain, plain), (wrapped, run)):
        y, routing = call(x)
        (y.square().sum() + routing.logits_NE.square().sum()).backward()
        assert all(p.grad is not None for p in layer.parameters())
    for expected, parameter in zip(plain.parameters(), wrapped.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


def test_gated_feed_forward():
    torch.manual_seed(0)
    layer, x = GatedFeedForward(WIDTH, 32), tokens(2, 9).requires_grad_()
    expected = layer.down_proj(F.silu(layer.gate_proj(x)) * layer.up_proj(x))
    inputs = (x, *layer.parameters())
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(
        torch.autograd.grad(layer(x).square().sum(), inputs), torch.autograd.grad(expected.square().sum(), inputs)
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_grouped_kernel_on_the_device():
    case = [y.detach().cuda() for y in arguments(200, 2)]
    x, expert, *others = (y.requires_grad_(y.is_floating_point()) for y in case)
    expected = value_and_gradients(run_experts, x, expert, *others)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        half = value_and_gradients(run_experts, x, expert, *others)
    for ours, theirs in zip(half, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.05, atol=0.05)
