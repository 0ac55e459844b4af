"""KernelSynth: its bank, its features, its combinations, and that a draw has exactly the covariance of its kernel.

Axes: T steps, N normal numbers behind a draw, F features.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from foreloom.data.synthetic.kernel import (
    BANK,
    PROCESS,
    TOLERANCE,
    Composition,
    Kernel,
    KernelConfig,
    compositions,
    draw_term,
    factor_features,
    periodic,
    polynomial,
    product,
    smooth,
)
from foreloom.data.synthetic.process import Draws


def written_out(kernel: Kernel, num_steps: int) -> np.ndarray:
    """The covariance of one kernel of the bank by scikit-learn's formulas, (T, T)."""
    x = np.linspace(0, 1, num_steps)
    d = x[:, None] - x
    match kernel.form:
        case "periodic":
            return np.exp(-2 * np.sin(np.pi * np.abs(d) / (kernel.parameter / num_steps)) ** 2)
        case "linear":
            return kernel.parameter**2 + np.outer(x, x)
        case "rbf":
            return np.exp(-0.5 * (d / kernel.parameter) ** 2)
        case "rational":
            return (1 + d**2 / (2 * kernel.parameter)) ** -kernel.parameter
        case "white":
            return kernel.parameter * np.eye(num_steps)
    assert kernel == ("constant", 0.0)
    return np.ones((num_steps, num_steps))


def covariance_of(composition: Composition, num_steps: int) -> np.ndarray:
    """From left to right, as it was drawn: nothing is expanded."""
    total = written_out(composition.kernels[0], num_steps)
    for kernel, multiplies in zip(composition.kernels[1:], composition.times, strict=True):
        other = written_out(kernel, num_steps)
        total = total * other if multiplies else total + other
    return total


class UnitNumbers:
    """In place of normal numbers: zeros but for a one at a place. Draws are linear in their numbers, so draws of all
    places are the columns of the factor L of a covariance L L^T."""

    def __init__(self, place: int):
        self.place = place
        self.count = 0

    def normal(self, use: str, *places: int) -> np.ndarray:
        self.count = math.prod(places)
        numbers = np.zeros(self.count)
        numbers[self.place] = 1
        return numbers.reshape(1, *places)


def factor_of(term, num_steps: int) -> np.ndarray:
    """(T, N)."""
    numbers = UnitNumbers(0)
    columns = [draw_term(numbers, "", term, num_steps)]
    columns += [draw_term(UnitNumbers(place), "", term, num_steps) for place in range(1, numbers.count)]
    return np.stack(columns, axis=1)


def assert_exact(composition: Composition, num_steps: int) -> None:
    expected = covariance_of(composition, num_steps)
    factors = [factor_of(term, num_steps) for term in composition.terms()]
    drawn = sum(factor @ factor.T for factor in factors)
    assert np.abs(drawn - expected).max() < 5e-10 * expected.max(), composition


def test_the_bank_is_that_of_the_paper():
    assert Counter(kernel.form for kernel in BANK) == {
        "periodic": 21, "linear": 3, "rbf": 3, "rational": 3, "white": 2, "constant": 1,
    }  # fmt: skip
    assert sum(kernel.parameter == 4 for kernel in BANK) == 3


@pytest.mark.parametrize("kernel", sorted(set(BANK)), ids=str)
def test_a_draw_of_one_kernel_has_its_covariance(kernel):
    assert_exact(Composition([kernel], []), 40)


def test_draws_of_random_compositions_have_their_covariance():
    drawn = compositions(Draws(5, "kernel", np.arange(60)), 5)
    assert {len(one.kernels) for one in drawn} == {1, 2, 3, 4, 5}
    for composition in drawn:
        assert_exact(composition, 24)


def test_products_that_share_features_and_products_that_are_factored():
    periodic = [kernel for kernel in BANK if kernel.form == "periodic"]
    few = Composition([periodic[0], periodic[7], BANK[24]], [True, True])
    many = Composition(periodic[:5], [True] * 4)
    sizes = [math.prod(len(factor) for factor in factor_features(one.terms()[0], 150)) > 150**2 for one in (few, many)]
    assert sizes == [False, True], "one of each"
    assert_exact(Composition(few.kernels[:2], [True]), 150)
    assert_exact(many, 150)


def test_series_of_the_process_have_the_covariance_of_their_kernels():
    """(a . y)**2 / a^T K a is 1 on average over series y of any covariances K."""
    num_series, num_steps = 1500, 64
    draws = Draws(1, "kernel", np.arange(num_series))
    series = PROCESS.generate(draws, num_steps, KernelConfig())
    weights = np.random.default_rng(0).normal(size=(4, num_steps))
    covariances = [covariance_of(one, num_steps) for one in compositions(draws, 5)]
    for a in weights:
        ratio = (series @ a) ** 2 / np.array([a @ covariance @ a for covariance in covariances])
        assert abs(ratio.mean() - 1) < 5 * np.sqrt(2 / num_series)
        assert abs(np.sign(series @ a).mean()) < 5 / np.sqrt(num_series)


def test_empirical_covariance_of_many_draws():
    term = (Kernel("periodic", 7), Kernel("rbf", 0.1), Kernel("linear", 1.0))
    num_draws, num_steps = 4000, 12
    draws = [draw_term(Draws(0, "kernel", np.array([item])), "x", term, num_steps) for item in range(num_draws)]
    expected = covariance_of(Composition(list(term), [True, True]), num_steps)
    error = np.abs(np.cov(np.stack(draws).T) - expected)
    # The deviation of a covariance's estimate (Wishart).
    deviation = np.sqrt((expected**2 + np.outer(expected.diagonal(), expected.diagonal())) / num_draws)
    assert (error < 5 * deviation).all()


def test_number_of_kernels_and_operators():
    drawn = compositions(Draws(0, "kernel", np.arange(20_000)), 5)
    sizes = Counter(len(one.kernels) for one in drawn)
    assert all(abs(sizes[count] / 20_000 - 0.2) < 0.015 for count in range(1, 6))
    times = [multiplies for one in drawn for multiplies in one.times]
    assert abs(np.mean(times) - 0.5) < 0.015
    used = Counter(kernel for one in drawn for kernel in one.kernels)
    assert abs(used[Kernel("periodic", 4)] / used.total() - 3 / 33) < 0.01
    assert set(used) == set(BANK)


def test_the_same_series_whatever_the_batch():
    together = PROCESS.generate(Draws(3, "kernel", np.arange(40)), 200, KernelConfig())
    apart = PROCESS.generate(Draws(3, "kernel", np.array([31, 7])), 200, KernelConfig())
    np.testing.assert_array_equal(apart, together[[31, 7]])
    other_seed = PROCESS.generate(Draws(4, "kernel", np.arange(40)), 200, KernelConfig())
    assert not np.isclose(other_seed, together).all(axis=1).any()


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_very_short_series(num_steps):
    series = PROCESS.generate(Draws(0, "kernel", np.arange(200)), num_steps, KernelConfig())
    assert series.shape == (200, num_steps)
    assert np.isfinite(series).all()


def test_more_kernels_than_features_can_hold():
    series = PROCESS.generate(Draws(0, "kernel", np.arange(30)), 100, KernelConfig(max_kernels=16))
    assert np.isfinite(series).all()


def test_kinds_tell_which_kernels_are_in_it():
    draws = Draws(0, "kernel", np.arange(300))
    kinds = PROCESS.kinds(draws, KernelConfig(max_kernels=1))
    forms = [one.kernels[0].form for one in compositions(draws, 1)]
    assert set(zip(forms, kinds, strict=True)) == {
        ("periodic", "periodic"), ("linear", "linear"), ("rbf", "smooth"), ("rational", "smooth"), ("white", "noise"),
        ("constant", "constant"),
    }  # fmt: skip


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
