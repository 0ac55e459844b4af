"""Causal networks: periodic roots show through, lags and nodes matter, noise is noise."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.causal import PROCESS


def test_the_season_of_the_roots_shows_in_what_they_cause(batch_of, autocorrelation):
    series = batch_of(PROCESS, 300, 720, periods=(12,), noise=0.01).series
    change = np.diff(series, axis=1)
    assert np.median(autocorrelation(change, 12) - autocorrelation(change, 9)) > 0.15


def test_lags_and_nodes_matter(batch_of):
    usual = batch_of(PROCESS, 100, 256).series
    assert not np.allclose(usual, batch_of(PROCESS, 100, 256, most_lag=0).series)
    assert not np.allclose(usual, batch_of(PROCESS, 100, 256, num_nodes=2).series)


def test_more_noise_is_rougher(batch_of):
    clean, noisy = (
        np.median(np.abs(np.diff(x, n=2, axis=1)), axis=1) / x.std(axis=1)
        for x in (batch_of(PROCESS, 300, 512, periods=(288,), noise=noise).series for noise in (0.0, 2.0))
    )
    assert np.median(noisy) > 3 * np.median(clean)


def test_many_nodes_stay_tame(batch_of):
    series = batch_of(PROCESS, 300, 256, num_nodes=32, most_lag=4).series
    assert np.abs(series).max() < 1e9


@pytest.mark.parametrize("settings", [{"num_nodes": 0}, {"most_lag": -1}, {"periods": ()}, {"noise": -1}])
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)
