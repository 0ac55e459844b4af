"""Objectives and figures of routers against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from foreloom.objectives.router import balance_loss, expert_load, load_figures, router_z_loss

L, N, E = 3, 50, 6


def routed(top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(L, N, E, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return logits, logits.topk(top_k, dim=-1).indices


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_balance_loss_pools_layers_before_the_product(top_k, masked):
    logits, expert = routed(top_k)
    keep = torch.arange(N) % 3 > 0 if masked else torch.ones(N, dtype=torch.bool)
    probability = logits[:, keep].flatten(0, 1).softmax(-1)
    chosen = torch.nn.functional.one_hot(expert[:, keep].flatten(0, 1), E).float()  # (n, K, E)
    expected = E * (chosen.mean(0) * probability.mean(0)).sum()
    loss = balance_loss(logits, expert, keep if masked else None)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


def test_balance_loss_is_the_number_of_choices_where_all_is_even():
    expert = torch.stack([torch.arange(N * L) % E, (torch.arange(N * L) + 1) % E], dim=-1)[: N * L // E * E]
    loss = balance_loss(torch.zeros(1, len(expert), E), expert[None])
    assert loss.item() == pytest.approx(2.0)


def test_nothing_kept_is_no_loss_and_no_load():
    logits, expert = routed(2)
    none = torch.zeros(N, dtype=torch.bool)
    assert balance_loss(logits, expert, none).item() == 0
    assert router_z_loss(logits, none).item() == 0
    assert expert_load(expert, E, none).sum() == 0


def test_z_loss():
    logits, _ = routed(1)
    keep = torch.arange(N) < 20
    expected = logits.exp().sum(-1).log() ** 2
    torch.testing.assert_close(router_z_loss(logits), expected.mean())
    torch.testing.assert_close(router_z_loss(logits, keep), expected[:, :20].mean())


def test_load_counts_tokens():
    _, expert = routed(2)
    keep = torch.arange(N) % 2 == 0
    expected = torch.stack([torch.bincount(layer.flatten(), minlength=E) for layer in expert[:, keep]])
    assert torch.equal(expert_load(expert, E, keep), expected)
    assert expert_load(expert, E).sum() == L * N * 2


def test_figures_of_the_load():
    figures = load_figures(np.array([[4, 4, 4, 4], [8, 8, 0, 0]]))
    assert figures == {"expert_entropy": pytest.approx((1 + math.log(2) / math.log(4)) / 2), "dead_experts": 2}
    assert load_figures(np.array([[7], [7]])) == {"expert_entropy": 1.0, "dead_experts": 0}
