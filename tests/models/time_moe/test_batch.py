"""Windows become rows of a causal model: moved to the left, filled, shifted, packed."""

from __future__ import annotations

import numpy as np
import torch
from made_windows import windows_of

from foreloom.data.stream.windows import Role
from foreloom.models.time_moe.batch import batch, pack

CPU = torch.device("cpu")
NAN = np.nan


def rows_of(windows) -> dict[str, list]:
    return {name: tensor.tolist() for name, tensor in batch(windows, CPU).items()}


def test_rows_move_left_are_filled_and_shifted():
    x_RL = np.array([[1, 2, 3, 4, 5, 6, 7, 8], [NAN, NAN, 1, NAN, 3, 4, 5, NAN], [5, 4, NAN, NAN, 1, NAN, 3, 2]])
    assert rows_of(windows_of(x_RL.astype(np.float32), horizon=3)) == {
        "input_ids": [[1, 2, 3, 4, 5, 6, 7], [1, 1, 3, 4, 0, 0, 0], [5, 4, 4, 4, 1, 1, 3]],
        "labels": [[2, 3, 4, 5, 6, 7, 8], [0, 3, 4, 5, 0, 0, 0], [4, 0, 0, 1, 0, 3, 2]],
        "loss_masks": [[1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 0, 1, 1]],
    }


def test_in_validation_only_the_horizon_counts():
    x_RL = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, NAN, NAN], [NAN, NAN, 3, 4, 5, NAN]], dtype=np.float32)
    assert rows_of(windows_of(x_RL, horizon=2, horizon_only=True)) == {
        "input_ids": [[1, 2, 3, 4, 5], [3, 4, 0, 0, 0]],
        "labels": [[0, 0, 0, 5, 6], [0, 5, 0, 0, 0]],
        "loss_masks": [[0, 0, 0, 1, 1], [0, 1, 0, 0, 0]],
    }


def test_covariates_and_rows_without_labels_are_left_out():
    x_RL = np.arange(32, dtype=np.float32).reshape(4, 8)
    x_RL[3, :7] = np.nan  # one step is no pair of input and label
    role_R = np.array([Role.TARGET, Role.PAST, Role.FUTURE, Role.TARGET], dtype=np.int8)
    assert rows_of(windows_of(x_RL, role_R=role_R))["input_ids"] == [list(range(7))]


def test_nothing_at_all_is_a_row_that_does_not_count():
    empty = batch(windows_of(np.full((3, 8), np.nan, np.float32)), CPU)
    assert all(tensor.shape == (1, 1) and not tensor.any() for tensor in empty.values())


def test_arguments_are_copies_of_their_own():
    x_RL = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    windows = windows_of(x_RL)
    before = windows.context_RC.copy(), windows.future_RH.copy()
    for tensor in batch(windows, CPU).values():
        tensor.zero_()
    assert np.array_equal(windows.context_RC, before[0]) and np.array_equal(windows.future_RH, before[1])


def test_packing_holds_every_row_once_and_only_where_it_pays():
    rng = np.random.default_rng(0)
    for _ in range(50):
        width = int(rng.integers(4, 64))
        length_R = rng.integers(1, width + 1, size=int(rng.integers(1, 40)))
        packing = pack(length_R, width)
        if packing is None:
            continue
        assert packing.num_rows <= 0.6 * len(length_R)
        taken = np.zeros((packing.num_rows, width), dtype=int)
        for row, start, length in zip(packing.row_R, packing.start_R, length_R, strict=True):
            assert start + length <= width
            taken[row, start : start + length] += 1
        assert taken.max() == 1 and taken.sum() == length_R.sum()
    assert pack(np.array([8, 8, 7]), 8) is None
    assert pack(np.array([2, 2, 2, 2]), 8).num_rows == 1


def test_packed_rows_do_not_see_each_other(tiny_time_moe):
    rows = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    packed, segments = rows.reshape(1, 48), torch.tensor([[4] * 24 + [9] * 24])
    apart = tiny_time_moe(rows, max_horizon_length=8).logits
    together = tiny_time_moe(packed, segment_ids=segments, max_horizon_length=8).logits
    torch.testing.assert_close(together.view_as(apart), apart, rtol=1e-5, atol=1e-5)
