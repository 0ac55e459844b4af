"""The quantile objective by hand."""

from __future__ import annotations

import pytest
import torch

from foreloom.objectives.loss import pinball, reduce

LEVELS = torch.tensor([0.1, 0.5, 0.9])


def test_pinball_by_hand():
    prediction = torch.tensor([[[1.0, 4.0], [2.0, 2.0], [3.0, 0.0]]])
    target = torch.tensor([[2.0, 1.0]])
    loss = pinball(prediction, target, torch.ones(1, 2, dtype=torch.bool), LEVELS)
    # Step 0: errors 1, 0, -1 cost .1, 0, .1; step 1: errors -3, -1, 1 cost 2.7, .5, .9; all doubled.
    torch.testing.assert_close(loss, torch.tensor([[0.4, 8.2]]))


def test_twice_the_pinball_at_the_median_is_the_absolute_error():
    torch.manual_seed(0)
    prediction, target = torch.randn(4, 1, 6), torch.randn(4, 6)
    loss = pinball(prediction, target, torch.ones(4, 6, dtype=torch.bool), torch.tensor([0.5]))
    torch.testing.assert_close(loss, (target - prediction[:, 0]).abs())


def test_masked_steps_are_never_read():
    prediction = torch.randn(2, 3, 4, requires_grad=True)
    target = torch.randn(2, 4)
    observed = torch.tensor([[True, True, False, False], [False] * 4])
    junk = torch.where(observed, target, torch.nan)
    loss = pinball(prediction, junk, observed, LEVELS)
    assert torch.equal(loss, pinball(prediction, torch.where(observed, target, 1e9), observed, LEVELS))
    loss.sum().backward()
    reached = (prediction.grad != 0).any(1)
    assert torch.equal(reached, observed) and prediction.grad.isfinite().all()


def test_reductions():
    loss = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0] * 4])
    observed = loss > 0
    tokens, reference = reduce(loss, observed, "tokens"), reduce(loss, observed, "reference")
    assert tokens.mean.item() == pytest.approx(6 / 3) and tokens.count.item() == 3
    assert reference.mean.item() == pytest.approx(6 / 12) and reference.count.item() == 3
    for reduction in ("tokens", "reference"):
        assert reduce(torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bool), reduction).count.item() == 0
