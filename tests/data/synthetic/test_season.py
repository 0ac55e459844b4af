"""Profiles: of mean 0 and deviation 1, and the same every period."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.process import Draws
from foreloom.data.synthetic.shapes import profile, season, weekdays

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
