"""Intermittent demand: whole numbers, the zeros asked for, gaps and lives as their kind says."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.intermittent import PROCESS


def test_whole_numbers_from_zero_many_of_them_zero(batch_of):
    series = batch_of(PROCESS, 600, 512).series
    np.testing.assert_array_equal(series, np.rint(series))
    assert series.min() == 0
    assert 0.6 < np.mean(series == 0) < 0.9


def test_longer_gaps_mean_more_zeros(batch_of):
    few, many = (
        np.mean(batch_of(PROCESS, 300, 512, kinds=("sporadic",), most_gap=gap).series == 0) for gap in (1.5, 100.0)
    )
    assert few < 0.4
    assert many > 0.8


def test_gaps_of_regular_orders_differ_less_than_those_of_sporadic_ones(batch_of):
    def spread_of_gaps(kind: str) -> float:
        series = batch_of(PROCESS, 300, 1024, kinds=(kind,), seasonal=0.0).series
        gaps = [np.diff(np.flatnonzero(row)) for row in series]
        return float(np.median([gap.std() / gap.mean() for gap in gaps if gap.mean() > 5]))

    assert spread_of_gaps("regular") < 0.25
    assert spread_of_gaps("sporadic") > 0.7


def test_slow_counts_are_poisson(batch_of):
    series = batch_of(PROCESS, 400, 1024, kinds=("slow",), seasonal=0.0).series
    assert np.median(series.var(axis=1) / series.mean(axis=1)) == pytest.approx(1, abs=0.03)


def test_lives_end_and_are_followed_by_others(batch_of):
    made = batch_of(PROCESS, 300, 6000, kinds=("lifecycle",), seasonal=0.0, most_gap=2.0)
    assert set(made.kinds) == {"lifecycle"}
    demand = made.series > 0
    month = demand.reshape(300, 300, 20).mean(axis=2)
    alive, dead = month > 0.2, month == 0
    assert 0.2 < dead.mean() < 0.6
    # From alive to dead and to alive again.
    died = np.maximum.accumulate(alive, axis=1) & dead
    assert np.mean((np.maximum.accumulate(died, axis=1) & alive).any(axis=1)) > 0.4


def test_a_season_of_demand_shows(batch_of):
    series = batch_of(PROCESS, 300, 1024, kinds=("slow",), seasonal=1.0, periods=(7,), most_gap=2.0).series
    by_day = series[:, : 146 * 7].reshape(300, 146, 7).mean(axis=1)
    assert np.median(by_day.max(axis=1) / by_day.mean(axis=1)) > 1.5


def test_spells_last_and_so_do_the_zeros_between(batch_of):
    made = batch_of(PROCESS, 300, 840, kinds=("spells",))
    assert set(made.kinds) == {"spells"} and set(batch_of(PROCESS, 300, 8).kinds).isdisjoint({"spells"})
    series = made.series
    np.testing.assert_array_equal(series, np.rint(series))
    comes = series > 0
    lasts = np.mean(comes[:, 1:][comes[:, :-1]])
    assert series.min() == 0 and 0.1 < comes.mean() < 0.4 and lasts > 0.8
    assert (~comes[:, -200:]).all(axis=1).mean() > 0.05, "some are silent for long"


@pytest.mark.parametrize("settings", [{"kinds": ("weekly",)}, {"kinds": ()}, {"most_gap": 1.0}, {"seasonal": -1}])
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)
