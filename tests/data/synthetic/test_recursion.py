"""First-order recursions: their definition step by step, and a law that does not change with time."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.shapes import autoregression, decayed_sums


def test_decayed_sums_step_by_step():
    sums = decayed_sums(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), np.array([0.5, 1.0]))
    np.testing.assert_array_equal(sums, [[1.0, 2.5, 4.25], [1.0, 2.0, 3.0]])


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_an_autoregression_has_variance_1_from_the_first_step_and_its_correlation(keep):
    shock = np.random.default_rng(0).standard_normal((20_000, 40))
    x = autoregression(shock, np.full(20_000, keep))
    np.testing.assert_allclose(x.var(axis=0), 1, atol=0.05)
    np.testing.assert_allclose((x[:, 1:] * x[:, :-1]).mean(axis=0), keep, atol=0.05)
