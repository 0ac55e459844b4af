"""Volatility: clusters, fat tails, positive prices, rates that come back."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.process import Draws
from foreloom.data.synthetic.volatility import PROCESS, _shocks


def _returns(batch_of, kind: str) -> np.ndarray:
    series = batch_of(PROCESS, 300, 2048, kinds=(kind,), returns=1.0).series
    return series / series.std(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["garch", "stochastic", "switching"])
def test_large_returns_come_together_though_returns_are_white(batch_of, autocorrelation, kind):
    returns = _returns(batch_of, kind)
    size = np.minimum(np.abs(returns), 4)
    assert np.median(autocorrelation(size, 1)) > 0.05
    assert np.median(autocorrelation(size, 10)) > 0.02
    assert abs(np.median(autocorrelation(returns, 1))) < 0.02


def test_jumps_do_not_cluster_but_have_fat_tails(batch_of, autocorrelation):
    returns = _returns(batch_of, "jumps")
    assert abs(np.median(autocorrelation(np.minimum(np.abs(returns), 4), 5))) < 0.02
    assert np.median((returns**4).mean(axis=1)) > 6


def test_shocks_have_variance_1_and_tails_fatter_than_normal():
    shock = _shocks(Draws(0, "volatility", np.arange(2000)), 500)
    assert shock.var() == pytest.approx(1, abs=0.05)
    assert np.mean(np.abs(shock) > 5) > 20 * 5.7e-7


def test_prices_are_positive_and_returns_are_about_zero(batch_of):
    kinds = ("garch", "stochastic", "switching", "jumps")
    prices = batch_of(PROCESS, 200, 1024, kinds=kinds, returns=0.0).series
    returns = batch_of(PROCESS, 200, 1024, kinds=kinds, returns=1.0).series
    assert prices.min() > 0
    assert np.median(np.abs(returns.mean(axis=1)) / returns.std(axis=1)) < 0.1


def test_a_calm_walk_of_very_many_steps_neither_dies_nor_explodes(batch_of):
    prices = batch_of(PROCESS, 30, 60_000, kinds=("stochastic",), returns=0.0).series
    assert prices.min() > 1e-6
    assert prices.max() < 1e9
    assert (np.ptp(prices[:, -1000:], axis=1) > 0).all()


def test_rates_return_to_their_mean(batch_of, autocorrelation):
    rates = batch_of(PROCESS, 200, 8192, kinds=("rate",)).series
    assert np.median(autocorrelation(rates, 1)) > 0.7
    assert abs(np.median(autocorrelation(rates, 3000))) < 0.1


def test_returns_of_rates_alone_are_refused():
    with pytest.raises(ValueError, match="returns has no effect on kinds: rate"):
        PROCESS.settings(kinds=("rate",), returns=0.5)


@pytest.mark.parametrize("settings", [{"kinds": ("arch",)}, {"kinds": ()}, {"returns": 1.1}])
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)
