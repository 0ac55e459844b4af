"""What processes are made of: seasonal profiles, stretches, first-order recursions and counts of given rates."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from foreloom.data.synthetic.process import Draws
from foreloom.data.synthetic.shapes import (
    autoregression,
    begun,
    decayed_sums,
    negative_binomial,
    poisson,
    profile,
    season,
    stretches,
    weekdays,
)

PERIODS = np.tile([2, 7, 24, 60, 61, 365], 50)
DRAWS = Draws(0, "test", np.arange(len(PERIODS)))


def test_a_profile_has_mean_0_and_deviation_1_over_its_period():
    for shape, period in zip(profile(DRAWS, "shape", PERIODS, 365), PERIODS, strict=True):
        assert shape[:period].mean() == pytest.approx(0, abs=1e-9)
        assert shape[:period].std() == pytest.approx(1) or np.ptp(shape) == pytest.approx(0, abs=1e-5)
        assert not shape[period:].any()


def test_seldom_is_a_profile_flat():
    assert np.mean(np.ptp(profile(DRAWS, "shape", PERIODS, 365), axis=1) < 0.1) < 0.05


def test_a_season_comes_again_every_period():
    for row, period in zip(season(DRAWS, "shape", PERIODS, 365, 800), PERIODS, strict=True):
        np.testing.assert_array_equal(row[period:], row[:-period])


def test_longer_tables_leave_the_profile_alone():
    short, long = (profile(DRAWS, "shape", np.minimum(PERIODS, 61), longest) for longest in (61, 365))
    np.testing.assert_allclose(short, long[:, :61], atol=1e-9)


def test_weekdays_hold_all_day_lead_over_at_night_and_the_weekend_stands_apart():
    days = np.arange(14 * 24) / 24
    level = weekdays(DRAWS, "week", np.tile(days, (len(PERIODS), 1)))
    np.testing.assert_allclose(level[:, :168], level[:, 168:], atol=1e-9)
    noon = level[:, 12:168:24]
    np.testing.assert_allclose(level[:, 0:168:24], noon)
    np.testing.assert_allclose(level[:, 21:144:24], (noon[:, :-1] + noon[:, 1:]) / 2)
    np.testing.assert_allclose(noon.std(axis=1), 1)
    apart = np.abs(noon[:, 5:].mean(axis=1) - noon[:, :5].mean(axis=1))
    assert np.median(apart / noon[:, :5].std(axis=1)) > 3


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


def test_decayed_sums_step_by_step():
    sums = decayed_sums(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), np.array([0.5, 1.0]))
    np.testing.assert_array_equal(sums, [[1.0, 2.5, 4.25], [1.0, 2.0, 3.0]])


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_an_autoregression_has_variance_1_from_the_first_step_and_its_correlation(keep):
    shock = np.random.default_rng(0).standard_normal((20_000, 40))
    x = autoregression(shock, np.full(20_000, keep))
    np.testing.assert_allclose(x.var(axis=0), 1, atol=0.05)
    np.testing.assert_allclose((x[:, 1:] * x[:, :-1]).mean(axis=0), keep, atol=0.05)


COUNT_DRAWS = Draws(0, "test", np.arange(200))


@pytest.mark.parametrize("rate", [0.0, 0.2, 3.0, 29.9, 30.1, 5000.0])
def test_poisson_mean_and_variance(rate):
    count = poisson(COUNT_DRAWS, "count", np.full((200, 1000), rate))
    np.testing.assert_array_equal(count, np.rint(count))
    assert count.min() >= 0
    assert count.mean() == pytest.approx(rate, rel=0.02)
    assert count.var() == pytest.approx(rate, rel=0.02)


def test_poisson_probabilities_of_a_small_rate():
    count = poisson(COUNT_DRAWS, "count", np.full((200, 1000), 0.7))
    for value, probability in ((0, exp(-0.7)), (1, 0.7 * exp(-0.7)), (2, 0.245 * exp(-0.7))):
        assert np.mean(count == value) == pytest.approx(probability, abs=0.004)


@pytest.mark.parametrize("mean", [0.5, 8.0, 400.0])
@pytest.mark.parametrize("shape", [1.0, 5.0, 500.0])
def test_negative_binomial_mean_and_variance(mean, shape):
    count = negative_binomial(COUNT_DRAWS, "count", np.full((200, 1000), mean), np.full(200, shape))
    assert count.mean() == pytest.approx(mean, rel=0.03)
    assert count.var() == pytest.approx(mean + mean**2 / shape, rel=0.06)
