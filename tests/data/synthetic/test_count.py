"""Counts: whole numbers, profiles of day and week, exact zeros when closed."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.count import PROCESS


def test_whole_numbers_more_scattered_than_poisson(batch_of):
    series = batch_of(PROCESS, 400, 512).series
    np.testing.assert_array_equal(series, np.rint(series))
    assert series.min() == 0
    assert np.median(series.var(axis=1) / series.mean(axis=1)) > 2


def test_a_day_shows_at_its_length(batch_of, autocorrelation):
    series = np.sqrt(batch_of(PROCESS, 300, 24 * 35, steps_per_day=(24,), holidays=0.0).series)
    assert np.median(autocorrelation(series, 24) - autocorrelation(series, 12)) > 0.4
    assert np.median(autocorrelation(series, 168) - autocorrelation(series, 84)) > 0.4


def test_a_week_of_days_shows(batch_of, autocorrelation):
    series = np.sqrt(batch_of(PROCESS, 300, 7 * 100, steps_per_day=(1,), most_visits=1000.0).series)
    assert np.median(autocorrelation(series, 7) - autocorrelation(series, 3)) > 0.15


def test_closed_hours_are_exact_zeros_at_the_same_time_each_day(batch_of):
    made = batch_of(PROCESS, 100, 24 * 28, steps_per_day=(24,), closed=1.0, most_visits=5000.0)
    assert set(made.kinds) == {"closed"}
    by_hour = made.series.reshape(100, 28, 24)
    closed = (by_hour == 0).all(axis=1).sum(axis=1)
    assert ((closed >= 5) & (closed <= 20)).mean() > 0.95
    assert set(batch_of(PROCESS, 50, 8, closed=0.0).kinds) == {"open"}


def test_closed_days_come_every_week(batch_of):
    series = batch_of(PROCESS, 100, 7 * 30, steps_per_day=(1,), closed=1.0, most_visits=5000.0).series
    closed = (series.reshape(100, 30, 7) == 0).all(axis=1).sum(axis=1)
    assert set(np.unique(closed)) <= {1, 2, 3}
    assert np.mean((closed == 1) | (closed == 2)) > 0.95


def test_holidays_change_some_days_alone(batch_of):
    with_some, without = (
        batch_of(PROCESS, 200, 365, steps_per_day=(1,), closed=0.0, holidays=share).series for share in (1.0, 0.0)
    )
    changed = (with_some != without).mean(axis=1)
    assert 0.01 < np.median(changed) < 0.08


def test_most_visits_bounds_the_level(batch_of):
    few, many = (batch_of(PROCESS, 200, 256, most_visits=most).series for most in (1.0, 1e5))
    assert np.median(few.mean(axis=1)) < 1.5
    assert np.median(many.mean(axis=1)) > 50


@pytest.mark.parametrize(
    "settings", [{"steps_per_day": (0,)}, {"steps_per_day": ()}, {"most_visits": 0}, {"closed": 2}, {"holidays": -1}]
)
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)
