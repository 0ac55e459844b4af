"""Stable autoregressions: stationary whatever is drawn, the partial autocorrelations asked for, sums that wander."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.arma import PROCESS, _autoregression, coefficients
from foreloom.data.synthetic.process import Draws


def test_any_partial_autocorrelations_give_roots_outside_the_unit_circle():
    partial = np.random.default_rng(0).uniform(-0.999, 0.999, (500, 6))
    for phi in coefficients(partial)[-1]:
        roots = np.roots([1.0, *-phi])  # of z^6 - phi_1 z^5 - ...: inverse roots of the autoregression.
        assert np.abs(roots).max() < 1


def test_orders_are_nested_and_the_second_is_as_written_out():
    first, second = coefficients(np.array([[0.5, -0.3]]))
    np.testing.assert_allclose(first, [[0.5, 0.0]])
    np.testing.assert_allclose(second, [[0.5 * (1 + 0.3), -0.3]])


def test_autoregressions_are_stationary_from_the_first_step():
    draws = Draws(0, "arma", np.arange(6000))
    y = _autoregression(draws, draws.normal("shock", 60), PROCESS.settings())
    np.testing.assert_allclose((y**2).mean(axis=0), 1, atol=0.1)
    # The correlation two steps apart is the same early and late.
    early, late = ((y[:, at] * y[:, at + 2]).mean() for at in (0, 50))
    assert early == pytest.approx(late, abs=0.06)


def test_kinds_follow_their_shares(batch_of):
    assert set(batch_of(PROCESS, 200, 8).kinds) == {"arma", "arima", "seasonal_arma", "seasonal_arima"}
    assert set(batch_of(PROCESS, 50, 8, seasonal=0.0, integrated=1.0).kinds) == {"arima"}
    assert set(batch_of(PROCESS, 50, 8, seasonal=1.0, integrated=0.0).kinds) == {"seasonal_arma"}


def test_integrated_series_wander_and_the_others_come_back(batch_of, autocorrelation):
    stays, wanders = (batch_of(PROCESS, 300, 512, seasonal=0.0, integrated=share).series for share in (0.0, 1.0))
    assert np.median(autocorrelation(stays, 50)) < 0.1
    assert np.median(autocorrelation(wanders, 50)) > 0.4


def test_seasonal_series_remember_a_period_ago(batch_of, autocorrelation):
    seasonal = batch_of(PROCESS, 300, 512, seasonal=1.0, integrated=0.0, periods=(24,)).series
    plain = batch_of(PROCESS, 300, 512, seasonal=0.0, integrated=0.0).series
    assert np.median(autocorrelation(seasonal, 24)) > 0.5
    assert abs(np.median(autocorrelation(plain, 24))) < 0.1


def test_one_lag_is_an_autoregression_of_order_one(batch_of, autocorrelation):
    series = batch_of(PROCESS, 400, 2048, most_lags=1, seasonal=0.0, integrated=0.0).series
    # An ARMA(1, 1): from lag 1 on its correlations fall by one factor.
    one, two, three = (autocorrelation(series, lag) for lag in (1, 2, 3))
    strong = np.abs(two) > 0.4
    assert strong.sum() > 50
    np.testing.assert_allclose((three / two)[strong], (two / one)[strong], atol=0.15)


@pytest.mark.parametrize("settings", [{"most_lags": 0}, {"seasonal": 2.0}, {"periods": (0,)}, {"integrated": -0.1}])
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)
