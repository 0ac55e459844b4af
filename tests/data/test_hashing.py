"""A permutation as a function: every number once, another order each epoch, whatever is asked together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreloom.data.hashing import permute


@given(st.integers(1, 5000), st.integers(0, 2**32), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_number_once_an_epoch(size, seed, epoch) -> None:
    order = permute(seed, "train", np.full(size, epoch), np.arange(size), size)
    assert sorted(order.tolist()) == list(range(size))


def test_a_part_is_what_the_whole_has_there() -> None:
    epoch, place = np.divmod(np.arange(2000), 777)
    whole = permute(3, "train", epoch, place, 777)
    for begin, end in ((0, 1), (700, 900), (1999, 2000)):
        np.testing.assert_array_equal(permute(3, "train", epoch[begin:end], place[begin:end], 777), whole[begin:end])


def test_epochs_seeds_and_streams_have_orders_of_their_own() -> None:
    places = np.arange(1000)
    orders = [
        permute(seed, stream, np.full(1000, epoch), places, 1000)
        for seed, stream, epoch in ((0, "train", 0), (0, "train", 1), (1, "train", 0), (0, "other", 0))
    ]
    for i, one in enumerate(orders):
        assert (one == places).sum() < 10
        for other in orders[:i]:
            assert (one == other).sum() < 10
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.12
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.12


@pytest.mark.parametrize("size", [3, 10, 65, 1000])
def test_numbers_are_even_over_places(size) -> None:
    """Over 4,000 epochs, what stands in the first place is uniform: chi-square over at most ten bins."""
    first = permute(0, "train", np.arange(4000), np.zeros(4000, dtype=int), size)
    num_bins = min(size, 10)
    counts = np.bincount(first * num_bins // size, minlength=num_bins)
    shares = np.bincount(np.arange(size) * num_bins // size, minlength=num_bins) / size
    assert ((counts - 4000 * shares) ** 2 / (4000 * shares)).sum() < 31  # 9 degrees: the 99.97 % point


def test_sizes_beyond_any_list() -> None:
    size = 3 * 2**40
    found = permute(0, "train", np.zeros(1000, dtype=int), np.arange(1000), size)
    assert len(set(found.tolist())) == 1000
    assert 0 <= found.min() < size / 50 < size * 49 / 50 < found.max() < size
