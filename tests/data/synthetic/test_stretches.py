"""Stretches: of the mean length asked for, never shorter than the shortest, and held values change where they end."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.process import Draws
from foreloom.data.synthetic.shapes import begun, stretches

DRAWS = Draws(0, "test", np.arange(300))


def test_number_and_age_of_each_step():
    made = begun(np.array([[2, 3, 9]]), 6)
    np.testing.assert_array_equal(made.number_BT, [[0, 0, 1, 2, 2, 2]])
    np.testing.assert_array_equal(made.age_BT, [[0, 1, 0, 0, 1, 2]])
    np.testing.assert_array_equal(made.held(np.array([[5, 6, 7, 8]])), [[5, 5, 6, 7, 7, 7]])
    assert made.most == 4


@pytest.mark.parametrize("mean", [20.0, 60.0, 300.0])
def test_lengths(mean):
    made = stretches(DRAWS, "change", np.full((300, 1), mean), 20, 30_000)
    changes = np.diff(made.number_BT, axis=1)
    assert set(np.unique(changes)) <= {0, 1}
    for row in changes[:20]:
        assert np.diff(np.flatnonzero(row)).min() >= 20
    # The floor of a length is half a step below it on average, but where it is 20 itself.
    assert 30_000 / changes.sum(axis=1).mean() == pytest.approx(mean, rel=0.03)


def test_lengths_may_take_turns():
    made = stretches(DRAWS, "change", np.tile([[100.0, 10.0]], (300, 3000)), 5, 3000)
    assert np.mean(made.number_BT % 2) == pytest.approx(10 / 110, abs=0.02)
