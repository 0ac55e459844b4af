"""Trend and season with regimes: positive where multiplied, the season at its period, what settings do."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.regimes import PROCESS


def test_multiplicative_series_are_positive_and_about_half_are(batch_of):
    made = batch_of(PROCESS, 600, 512)
    multiplied = made.kinds == "multiplicative"
    assert made.series[multiplied].min() > 0
    assert 0.43 < multiplied.mean() < 0.57
    assert set(batch_of(PROCESS, 50, 8, multiplicative=1.0).kinds) == {"multiplicative"}
    assert set(batch_of(PROCESS, 50, 8, multiplicative=0.0).kinds) == {"additive"}


@pytest.mark.parametrize("period", [7, 12])
def test_the_season_shows_at_its_period_and_not_between(batch_of, autocorrelation, period):
    series = batch_of(PROCESS, 400, 504, periods=(period,), seasonal=1.0, noise=0.1, mean_stretch=10_000).series
    change = series[:, 1:] - series[:, :-1]
    at, off = (autocorrelation(change, lag) for lag in (period, period - 2))
    assert np.median(at) > 0.7
    assert np.mean(at > off) > 0.95


@pytest.mark.parametrize("period, low, high", [(24, 0.15, 0.6), (23, 0.0, 0.02)])
def test_weeks_show_in_series_whose_period_may_be_a_day(batch_of, autocorrelation, period, low, high):
    series = batch_of(
        PROCESS, 300, period * 28, periods=(period,), seasonal=1.0, noise=0.02, mean_stretch=10_000
    ).series
    change = np.diff(series, axis=1)
    weekly = autocorrelation(change, 7 * period) > autocorrelation(change, 6 * period) + 0.03
    assert low <= weekly.mean() <= high


def test_without_a_season_the_period_is_nothing_special(batch_of, autocorrelation):
    change = np.diff(batch_of(PROCESS, 300, 504, seasonal=0.0).series, axis=1)
    assert abs(np.median(autocorrelation(change, 12))) < 0.05


def test_noise_is_noise(batch_of):
    clean, noisy = (
        batch_of(PROCESS, 300, 256, seasonal=0.0, multiplicative=0.0, noise=noise).series for noise in (0.0, 2.0)
    )
    rough_clean, rough_noisy = (
        np.median(np.abs(np.diff(x, n=2, axis=1)), axis=1) / np.ptp(x, axis=1) for x in (clean, noisy)
    )
    assert np.median(rough_clean) < 1e-3 < np.median(rough_noisy)


def test_shorter_stretches_turn_more_often(batch_of):
    calm, restless = (
        batch_of(PROCESS, 300, 1024, seasonal=0.0, noise=0.0, mean_stretch=mean).series for mean in (100_000, 30)
    )
    turns_calm, turns_restless = (
        (np.diff(np.sign(np.diff(x, axis=1)), axis=1) != 0).sum(axis=1) for x in (calm, restless)
    )
    assert np.median(turns_calm) == 0
    assert np.median(turns_restless) > 5


@pytest.mark.parametrize(
    "settings", [{"periods": ()}, {"periods": (1,)}, {"noise": -1.0}, {"seasonal": 1.5}, {"mean_stretch": 10}]
)
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)


def test_periods_of_no_season_are_refused():
    with pytest.raises(ValueError, match="periods has no effect with seasonal: 0"):
        PROCESS.settings(seasonal=0.0, periods=(7,))


def test_a_shorter_reach_makes_steeper_trends(batch_of):
    gentle, steep = (
        np.median(
            np.ptp(
                np.log(batch_of(PROCESS, 200, 96, seasonal=0.0, noise=0.0, multiplicative=1.0, **reach).series), axis=1
            )
        )
        for reach in ({}, {"reach": 5.0})
    )
    assert steep > 2 * gentle
