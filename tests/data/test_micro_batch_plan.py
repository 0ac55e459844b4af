"""The micro-batch plan holds its budgets for any rows, lengths and ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foreloom.data.loader import plan_micro_batches

SAMPLES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 2048)), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(SAMPLES, st.integers(1, 5), st.integers(0, 20))
def test_every_sample_once_within_the_budget(samples, world_size, budget) -> None:
    rows, steps = (np.array(column) for column in zip(*samples, strict=True))
    plan = plan_micro_batches(rows, steps, world_size=world_size, micro_batch_size=budget)
    assert len(plan) == world_size
    assert len({len(micro_batches) for micro_batches in plan}) == 1
    positions = np.concatenate([positions for micro_batches in plan for positions in micro_batches])
    assert sorted(positions) == list(range(len(samples)))
    for micro_batches in plan:
        if not budget:
            assert len(micro_batches) == 1
        for positions in micro_batches:
            assert not budget or rows[positions].sum() <= budget or len(positions) == 1


def test_equal_samples_are_shared_out_evenly() -> None:
    plan = plan_micro_batches(np.ones(96, int), np.full(96, 512), world_size=3, micro_batch_size=16)
    assert [[len(positions) for positions in rank] for rank in plan] == [[16, 16]] * 3
    plan = plan_micro_batches(np.ones(97, int), np.full(97, 512), world_size=3)
    assert sorted(len(rank[0]) for rank in plan) in ([31, 33, 33], [32, 32, 33])


def test_lengths_are_bucketed_and_neighbours_run_together() -> None:
    rng = np.random.default_rng(0)
    steps = rng.integers(16, 2049, 256)
    plan = plan_micro_batches(np.ones(256, int), steps, world_size=2, micro_batch_size=16)
    padded = sum(len(p) * steps[p].max() for rank in plan for p in rank if len(p))
    assert padded / steps.sum() < 1.12
    for left, right in zip(*plan, strict=True):
        assert steps[left].min() >= steps[right].max()


def test_one_micro_batch_a_rank_balances_the_padded_area() -> None:
    rng = np.random.default_rng(1)
    steps = rng.integers(16, 2049, 256)
    plan = plan_micro_batches(np.ones(256, int), steps, world_size=4)
    areas = [len(rank[0]) * steps[rank[0]].max() for rank in plan]
    assert max(areas) / np.mean(areas) < 1.15


def test_fewer_samples_than_ranks_leave_empty_places() -> None:
    plan = plan_micro_batches(np.array([3, 2]), np.array([10, 20]), world_size=4)
    assert sorted(len(rank[0]) for rank in plan) == [0, 0, 1, 1]
