"""What holds of every synthetic process: series i is always the same, finite, tame and not flat; and its settings."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from foreloom.data.synthetic.chaos import ChaosConfig
from foreloom.data.synthetic.count import CountConfig
from foreloom.data.synthetic.regimes import RegimesConfig

NAMES = ("regimes", "arma", "ets", "intermittent", "volatility", "chaos", "spikes", "count", "causal")


@pytest.fixture(params=NAMES)
def process(request):
    return import_module(f"foreloom.data.synthetic.{request.param}").PROCESS


def test_the_record_is_named_as_its_module(process):
    assert process.generate.__module__ == f"foreloom.data.synthetic.{process.name}"


def test_a_series_is_the_same_alone_and_in_any_batch(process, batch_of):
    whole = batch_of(process, range(40), 300)
    turned = batch_of(process, [2**40, *range(39, -1, -1)], 300)
    np.testing.assert_array_equal(turned.series[1:][::-1], whole.series)
    np.testing.assert_array_equal(turned.kinds[1:][::-1], whole.kinds)
    for item in range(0, 40, 3):
        np.testing.assert_array_equal(batch_of(process, [item], 300).series[0], whole.series[item])


def test_the_first_steps_do_not_depend_on_how_many_are_made(process, batch_of):
    short, long = (batch_of(process, 40, num_steps).series for num_steps in (97, 1024))
    np.testing.assert_array_equal(short, long[:, :97])


def test_seeds_and_items_differ(process, batch_of):
    one, other = (batch_of(process, 40, 200, seed=seed).series for seed in (0, 1))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True) if np.ptp(a))
    assert len(np.unique(one, axis=0)) >= 39


def test_series_are_finite_tame_and_seldom_flat(process, batch_of):
    series = batch_of(process, 1500, 512).series
    assert series.dtype == np.float64
    assert series.shape == (1500, 512)
    assert np.abs(series).max() < 1e9
    assert np.mean(np.ptp(series, axis=1) == 0) < 0.02


def test_long_series_stay_tame(process, batch_of):
    series = batch_of(process, 60, 8192).series
    assert np.abs(series).max() < 1e9
    # A fourth of intermittent series have a life, and it may be over.
    assert np.mean(np.ptp(series[:, -1024:], axis=1) == 0) < 0.25


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_very_short_series(process, batch_of, num_steps):
    series = batch_of(process, 50, num_steps).series
    assert series.shape == (50, num_steps)
    assert np.isfinite(series).all()


def test_a_batch_of_no_series(process, batch_of):
    assert batch_of(process, [], 64).series.shape == (0, 64)


def test_unknown_settings_are_refused(process, batch_of):
    with pytest.raises(ValueError, match="colour"):
        batch_of(process, 1, 8, colour="red")


def test_a_list_may_be_written_with_commas():
    assert ChaosConfig(systems="lorenz,henon").systems == ("lorenz", "henon")
    assert RegimesConfig(periods="24,168") == RegimesConfig(periods=[24, 168])
    assert CountConfig(steps_per_day="24").steps_per_day == (24,)


@pytest.mark.parametrize("periods", ["24,day", "24,,168", "", "1"])
def test_words_that_are_no_periods_are_refused(periods):
    with pytest.raises(ValueError, match="periods"):
        RegimesConfig(periods=periods)
