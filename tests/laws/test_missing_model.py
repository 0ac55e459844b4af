"""Law: a model never reads what is missing, in the context, the known future or the target."""

from __future__ import annotations

import pytest
import torch

IDS = torch.tensor([0, 0, 1, 2, 2])


@pytest.fixture
def model(tiny_chronos2):
    return tiny_chronos2


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(5, 80, generator=generator).cumsum(1)
    context[0, 10:50] = torch.nan
    context[1, :70] = torch.nan
    context[3] = torch.nan
    future, target = torch.randn(5, 30, generator=generator), torch.randn(5, 30, generator=generator)
    future[torch.tensor([0, 2, 3])] = torch.nan
    future[1, 12:] = torch.nan
    target[1] = torch.nan
    target[0, ::2] = torch.nan
    return context, future, target


@pytest.mark.parametrize("junk", [0.0, 1e6, -77.0, float("nan")])
def test_junk_where_a_mask_says_missing_changes_nothing(model, rows, junk):
    context, future, target = rows
    plain = model(context, group_ids=IDS, future_covariates=future, future_target=target, num_output_patches=2)
    masked = model(
        context,
        context_mask=(~context.isnan()).float(),
        group_ids=IDS,
        future_covariates=future.nan_to_num(junk),
        future_covariates_mask=(~future.isnan()).float(),
        future_target=target.nan_to_num(junk),
        future_target_mask=(~target.isnan()).float(),
        num_output_patches=2,
    )
    assert torch.equal(plain.quantile_preds, masked.quantile_preds)
    assert torch.equal(plain.loss, masked.loss) and torch.equal(plain.objective.sum, masked.objective.sum)
    assert plain.objective.count.item() == (~target.isnan() & future.isnan()).sum().item()


def test_gradients_are_finite_with_holes_everywhere(model, rows):
    context, future, target = rows
    context.requires_grad_()
    model.train()(
        context, group_ids=IDS, future_covariates=future, future_target=target, num_output_patches=2
    ).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    seen = ~context.isnan()
    assert context.grad[~seen].abs().max() == 0 and context.grad[seen].isfinite().all()


def test_padding_before_a_row_changes_nothing(model, rows):
    context, _, _ = rows
    padded = torch.cat([torch.full((5, 16), torch.nan), context], 1)
    with torch.no_grad():
        torch.testing.assert_close(
            model(padded, group_ids=IDS).quantile_preds, model(context, group_ids=IDS).quantile_preds,
            rtol=1e-4, atol=1e-4,
        )  # fmt: skip


def test_a_batch_without_targets_counts_nothing(model, rows):
    context, _, target = rows
    for reduction in ("tokens", "reference"):
        model.reduction = reduction
        objective = model(context, future_target=torch.full_like(target, torch.nan)).objective
        assert objective.count.item() == 0 and objective.sum.item() == 0
        objective.mean.backward()


@pytest.fixture
def bolt_rows():
    """Contexts and targets: a hole, a late start, a row without anything, a target with holes, and one without end."""
    walk = torch.randn(5, 120, generator=torch.Generator().manual_seed(0)).cumsum(1)
    context, target = walk[:, :90].clone(), walk[:, 90:].clone()
    context[1, 20:37] = torch.nan
    context[2, :50] = torch.nan
    context[3] = torch.nan
    target[0, ::2] = torch.nan
    target[4, 12:] = torch.nan
    return context, target


@pytest.mark.parametrize("junk", [0.0, 1e6, float("nan")])
def test_junk_changes_nothing_in_chronos_bolt(tiny_chronos_bolt, bolt_rows, junk):
    model, (context, target) = tiny_chronos_bolt, bolt_rows
    plain = model(context, target=target)
    masks = (~context.isnan()).float(), (~target.isnan()).float()
    # The centre and spread know NaN only, as published; so the context's own junk is NaN.
    masked = model(context, masks[0], target.nan_to_num(junk), masks[1])
    assert torch.equal(plain.quantile_preds, masked.quantile_preds)
    assert torch.equal(plain.loss, masked.loss) and torch.equal(plain.objective.sum, masked.objective.sum)


def test_gradients_of_chronos_bolt_are_finite_with_holes_everywhere(tiny_chronos_bolt, bolt_rows):
    model, (context, target) = tiny_chronos_bolt, bolt_rows
    context.requires_grad_()
    model.train()(context, target=target).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
    seen = ~context.isnan()
    assert context.grad[~seen].abs().max() == 0 and context.grad[seen].isfinite().all()


def test_a_batch_of_chronos_bolt_without_targets_counts_nothing(tiny_chronos_bolt, bolt_rows):
    context, target = bolt_rows
    for reduction in ("tokens", "reference"):
        tiny_chronos_bolt.reduction = reduction
        objective = tiny_chronos_bolt(context, target=torch.full_like(target, torch.nan)).objective
        assert objective.count.item() == 0 and objective.sum.item() == 0
        objective.mean.backward()
