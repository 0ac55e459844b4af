"""The Huber loss of several horizons, against its definition written as loops."""

from __future__ import annotations

import pytest
import torch

from foreloom.models.time_moe.objective import HUBER_DELTA as DELTA
from foreloom.models.time_moe.objective import huber_by_position, mean_of_batch, mean_of_rows

HORIZONS = (1, 3, 7)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    prediction = 3 * torch.randn(3, 10, sum(HORIZONS), generator=generator)
    label, mask = 3 * torch.randn(3, 10, generator=generator), (torch.rand(3, 10, generator=generator) > 0.3).float()
    return prediction.requires_grad_(), label, mask


def by_definition(prediction, label, mask, segment=None, counts_tail=False):
    """{(row, position, head): (sum, count)}."""
    terms = {}
    for row in range(len(label)):
        for position in range(label.shape[1]):
            for head, horizon in enumerate(HORIZONS):
                total = count = 0.0
                for ahead in range(horizon):
                    step, column = position + ahead, sum(HORIZONS[:head]) + ahead
                    inside = step < label.shape[1]
                    if inside and segment is not None and segment[row, step] != segment[row, position]:
                        continue
                    weight = mask[row, step].item() if inside else float(counts_tail)
                    error = abs(prediction[row, position, column].item() - (label[row, step].item() if inside else 0))
                    total += weight * (error**2 / 2 if error <= DELTA else DELTA * (error - DELTA / 2))
                    count += weight
                terms[row, position, head] = total, count
    return terms


@pytest.mark.parametrize(("has_segments", "counts_tail"), [(False, False), (False, True), (True, False)])
def test_sums_at_every_position(case, has_segments, counts_tail):
    segment = torch.tensor([[0] * 4 + [1] * 6, [2] * 10, [3] * 3 + [4] * 5 + [5] * 2]) if has_segments else None
    prediction, label, mask = case
    terms = huber_by_position(prediction, label, mask, HORIZONS, segment_BS=segment, counts_tail=counts_tail)
    for (row, position, head), (total, count) in by_definition(*case, segment, counts_tail).items():
        assert terms.sum_PBS[head, row, position].item() == pytest.approx(total, rel=1e-5, abs=1e-6)
        assert terms.count_PBS[head, row, position].item() == count


def test_masked_labels_are_not_read(case):
    prediction, label, mask = case
    plain = huber_by_position(prediction, label, mask, HORIZONS).sum_PBS
    junk = huber_by_position(prediction, torch.where(mask > 0, label, torch.nan), mask, HORIZONS).sum_PBS
    assert torch.equal(plain, junk) and plain.isfinite().all()


def test_mean_of_rows_weighs_each_row_by_its_labels(case):
    prediction, label, mask = case
    terms = huber_by_position(prediction, label, mask, HORIZONS)
    loss = mean_of_rows(terms, mask)
    expected = 0.0
    for row in range(3):
        means = (terms.sum_PBS[:, row].sum(-1) / terms.count_PBS[:, row].sum(-1)).mean()
        expected += mask[row].sum().item() * means.item()
    assert loss.sum.item() == pytest.approx(expected, rel=1e-6) and loss.count.item() == mask.sum().item()
    rows = [mean_of_rows(huber_by_position(*(x[i : i + 1] for x in case), HORIZONS), mask[i : i + 1]) for i in range(3)]
    assert sum(row.sum.item() for row in rows) == pytest.approx(loss.sum.item(), rel=1e-6)


def test_equal_rows_have_the_mean_of_the_batch(case):
    prediction, label, _ = case
    terms = huber_by_position(prediction, label, torch.ones(3, 10), HORIZONS)
    assert mean_of_rows(terms, torch.ones(3, 10)).mean.item() == pytest.approx(mean_of_batch(terms).item(), rel=1e-6)


def test_gradient_is_that_of_the_sum_and_nothing_flows_from_masked_rows(case):
    prediction, label, mask = case
    mask[1] = 0
    loss = lambda p: mean_of_rows(huber_by_position(p, label, mask, HORIZONS), mask).sum
    (gradient,) = torch.autograd.grad(loss(prediction), prediction)
    assert not gradient[1].any() and gradient[0].any()
    direction = torch.randn(prediction.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        slope = (loss(prediction + 1e-2 * direction) - loss(prediction - 1e-2 * direction)).item() / 2e-2
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-2)
