"""Law: rows see their own group only, whatever the order of rows, the ids, or the company in the batch."""

from __future__ import annotations

import pytest
import torch

IDS = torch.tensor([7, -2, 7, 3, 7, -2, 11, 3])


@pytest.fixture
def model(tiny_chronos2):
    return tiny_chronos2


@pytest.fixture
def context():
    """Eight rows, some of which start late."""
    rows = torch.randn(8, 90, generator=torch.Generator().manual_seed(0)).cumsum(1)
    rows[2, :60] = torch.nan
    rows[5, :33] = torch.nan
    rows[7] = torch.nan
    return rows


def forecast(model, context, ids):
    with torch.no_grad():
        return model(context, group_ids=ids, num_output_patches=2).quantile_preds


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_group_is_what_it_would_be_alone(model, context):
    together = forecast(model, context, IDS)
    for group in IDS.unique():
        rows = group == IDS
        assert_same(together[rows], forecast(model, context[rows], IDS[rows]))


def test_no_other_group_is_felt_and_every_mate_is(model, context):
    together = forecast(model, context, IDS)
    for row in range(7):
        changed = context.clone()
        changed[row, -8:] *= -3
        moved = (forecast(model, changed, IDS) - together).abs().amax((1, 2)) > 1e-3
        assert torch.equal(moved, IDS[row] == IDS), row


def test_order_of_rows_and_names_of_groups_mean_nothing(model, context):
    together = forecast(model, context, IDS)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    assert_same(forecast(model, context[order], IDS[order]), together[order])
    renamed = IDS * -5 + 2
    assert torch.equal(forecast(model, context, renamed), together)


def test_gradients_stay_inside_the_group(model, context):
    context = context.nan_to_num().requires_grad_()
    model(context, group_ids=IDS).quantile_preds[0].sum().backward()
    assert torch.equal(context.grad.abs().sum(1) > 0, IDS[0] == IDS)
