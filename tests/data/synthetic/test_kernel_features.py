"""Features of kernels: their products are the kernels, written out here, to the stated tolerance.

Axes: T points, F features.
"""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.kernel import TOLERANCE, periodic, polynomial, product, smooth

NUM_STEPS = 300
X = np.linspace(0, 1, NUM_STEPS)
DISTANCE = np.abs(X[:, None] - X)


def covariance(features_FT: np.ndarray) -> np.ndarray:
    return features_FT.T @ features_FT


def assert_close(features_FT: np.ndarray, expected_TT: np.ndarray) -> None:
    assert np.abs(covariance(features_FT) - expected_TT).max() < TOLERANCE * expected_TT.max()


def exp_sine_squared(period: float) -> np.ndarray:
    """`period` in steps."""
    return np.exp(-2 * np.sin(np.pi * DISTANCE / (period / NUM_STEPS)) ** 2)


@pytest.mark.parametrize("period", [4, 7, 24, 365, 730])
@pytest.mark.parametrize("power", [1, 2, 5])
def test_periodic(period, power):
    assert_close(periodic(NUM_STEPS, period, power), exp_sine_squared(period) ** power)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_rbf_has_few_features(scale):
    features_FT = smooth(NUM_STEPS, lambda d: np.exp(-((d / scale) ** 2) / 2))
    assert_close(features_FT, np.exp(-((DISTANCE / scale) ** 2) / 2))
    assert len(features_FT) <= 32


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_rational_quadratic(alpha):
    features_FT = smooth(NUM_STEPS, lambda d: (1 + d**2 / (2 * alpha)) ** -alpha)
    assert_close(features_FT, (1 + DISTANCE**2 / (2 * alpha)) ** -alpha)


@pytest.mark.parametrize("sigmas", [[], [0.0], [1.0], [10.0, 0.0], [0.0, 1.0, 10.0, 10.0]])
def test_polynomial(sigmas):
    expected = np.prod([np.ones_like(DISTANCE), *(sigma**2 + np.outer(X, X) for sigma in sigmas)], axis=0)
    assert_close(polynomial(NUM_STEPS, [sigma**2 for sigma in sigmas]), expected)


def test_product_leaves_out_what_cannot_be_seen():
    one, other = periodic(NUM_STEPS, 24, 1), periodic(NUM_STEPS, 7, 1)
    both = product(one, other)
    assert_close(both, exp_sine_squared(24) * exp_sine_squared(7))
    assert len(both) < 0.8 * len(one) * len(other)


def test_cached_features_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        periodic(NUM_STEPS, 24, 1)[0, 0] = 1
