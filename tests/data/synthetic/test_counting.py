"""Counts of given rates: their means, variances and probabilities."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from foreloom.data.synthetic.process import Draws
from foreloom.data.synthetic.shapes import negative_binomial, poisson

DRAWS = Draws(0, "test", np.arange(200))


@pytest.mark.parametrize("rate", [0.0, 0.2, 3.0, 29.9, 30.1, 5000.0])
def test_poisson_mean_and_variance(rate):
    count = poisson(DRAWS, "count", np.full((200, 1000), rate))
    np.testing.assert_array_equal(count, np.rint(count))
    assert count.min() >= 0
    assert count.mean() == pytest.approx(rate, rel=0.02)
    assert count.var() == pytest.approx(rate, rel=0.02)


def test_poisson_probabilities_of_a_small_rate():
    count = poisson(DRAWS, "count", np.full((200, 1000), 0.7))
    for value, probability in ((0, exp(-0.7)), (1, 0.7 * exp(-0.7)), (2, 0.245 * exp(-0.7))):
        assert np.mean(count == value) == pytest.approx(probability, abs=0.004)


@pytest.mark.parametrize("mean", [0.5, 8.0, 400.0])
@pytest.mark.parametrize("shape", [1.0, 5.0, 500.0])
def test_negative_binomial_mean_and_variance(mean, shape):
    count = negative_binomial(DRAWS, "count", np.full((200, 1000), mean), np.full(200, shape))
    assert count.mean() == pytest.approx(mean, rel=0.03)
    assert count.var() == pytest.approx(mean + mean**2 / shape, rel=0.06)
