"""Categories as numbers: the two encodings worked by hand."""

from itertools import pairwise

import numpy as np
import pytest

from foreloom.data.encoding import encode, encode_many


def test_one_target_gives_smoothed_means():
    target = np.array([[1.0, 3, 5, np.nan, 11]])
    past, future = encode(np.array(["a", "a", "b", "b", "c"]), target, np.array(["b", "new", "a"]))
    mean = 20 / 4
    np.testing.assert_allclose(past, [(mean + 4) / 3] * 2 + [(mean + 5) / 2] * 2 + [(mean + 11) / 2])
    np.testing.assert_allclose(future, [(mean + 5) / 2, mean, (mean + 4) / 3])


def test_several_targets_give_places_in_sorted_order():
    past, future = encode(np.array(["v", "u", "v"]), np.zeros((2, 3)), np.array(["u", "w", "a", "v"]))
    np.testing.assert_array_equal(past, [1, 0, 1])
    np.testing.assert_array_equal(future, [0, np.nan, np.nan, 1])


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_is_a_category_of_its_own(missing):
    labels = np.array(["u", missing, "u"], dtype=object)
    past, future = encode(labels, np.array([[1.0, 6, 2]]), labels)
    np.testing.assert_allclose(past, [(3 + 3) / 3, (3 + 6) / 2, (3 + 3) / 3])
    np.testing.assert_array_equal(past, future)
    past, future = encode(labels, np.zeros((2, 3)), np.array([missing, "u"], dtype=object))
    np.testing.assert_array_equal(past, [0, 1, 0])
    np.testing.assert_array_equal(future, [1, 0])


def test_booleans_are_categories():
    past, future = encode(np.array([True, False, True]), np.zeros((2, 3)), np.array([False]))
    np.testing.assert_array_equal(past, [1, 0, 1])
    np.testing.assert_array_equal(future, [0])


def test_without_a_future_there_is_none():
    past, future = encode(np.array(["a", "b"]), np.array([[1.0, 2.0]]))
    assert future is None
    np.testing.assert_allclose(past, [(1.5 + 1) / 2, (1.5 + 2) / 2])


def test_a_target_without_values_gives_nothing_to_go_by():
    past, _ = encode(np.array(["a", "b"]), np.full((1, 2), np.nan))
    assert np.isnan(past).all()


def test_many_series_at_once_are_encoded_as_one_by_one():
    rng = np.random.default_rng(0)
    starts = np.array([0, 5, 6, 30, 60])
    labels = np.array(["a", "b", "c", None], dtype=object)
    past_T, future_NH = labels[rng.integers(0, 4, 60)], rng.choice(np.append(labels, "new"), (4, 7))
    target_T = rng.normal(size=60).astype(np.float32)
    target_T[[2, 5, 40]] = np.nan
    past, future = encode_many(past_T, target_T, starts, future_NH)
    for n, (begin, end) in enumerate(pairwise(starts)):
        one, ahead = encode(past_T[begin:end], target_T[None, begin:end], future_NH[n])
        np.testing.assert_allclose(past[begin:end], one, rtol=1e-12)
        np.testing.assert_allclose(future[n], ahead, rtol=1e-12)
    assert encode_many(past_T, target_T, starts)[1] is None
