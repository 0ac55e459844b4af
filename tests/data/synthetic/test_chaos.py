"""Chaos: bounded for ever, its own laws obeyed, neighbours part, correlations fade."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic import chaos
from foreloom.data.synthetic.chaos import MONOMIALS, PROCESS, SYSTEMS
from foreloom.data.synthetic.process import Draws


def test_the_right_side_of_lorenz_is_as_written_out():
    x, y, z = 1.0, 2.0, 3.0
    side = chaos._right_side(
        SYSTEMS["lorenz"].coefficients().T[:, :, None].copy(),
        np.array([[x], [y], [z]]),
        np.ones((len(MONOMIALS), 1, 1)),
    )
    np.testing.assert_allclose(side[:, 0], [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


@pytest.mark.parametrize("name", [*SYSTEMS, "mackey_glass"])
def test_a_system_stays_on_its_attractor(batch_of, name):
    """No series of thousands touches its wall, none comes to rest, and the table's spreads are right."""
    draws = Draws(0, "chaos", np.arange(1000))
    if name == "mackey_glass":
        series = chaos._mackey_glass(draws, 512)
    else:
        series = chaos._quadratic(draws, np.full(1000, name), 512)
    assert np.abs(series).max() < chaos._WALL / 2
    assert series.std(axis=1).min() > 0.02
    assert 0.6 < np.sqrt(np.median(series.var(axis=1))) < 1.5


def test_neighbours_part(batch_of):
    system = SYSTEMS["lorenz"]
    start = np.tile(np.array(system.start, dtype=float)[:, None], 2)
    start[0, 1] += 1e-6
    path = chaos._path(
        np.tile(system.coefficients().T[:, :, None], 2), start, np.full((3, 2), 1e3), np.array([0.02, 0.02]), 2000
    )
    apart = np.abs(path[:, 0, 0] - path[:, 0, 1])
    assert apart[:50].max() < 1e-4
    assert apart[1500:].max() > 5


def test_runge_and_kutta_are_of_fourth_order():
    system = SYSTEMS["lorenz"]
    coefficient, start = system.coefficients().T[:, :, None].copy(), np.array(system.start, dtype=float)[:, None]

    def end(clock: float) -> np.ndarray:
        return chaos._path(coefficient, start, np.full((3, 1), 1e3), np.array([clock]), round(0.4 / clock))[-1]

    exact = end(0.0005)
    coarse, fine = (np.abs(end(clock) - exact).max() for clock in (0.02, 0.01))
    assert 10 < coarse / fine < 25


def test_correlations_fade(batch_of, autocorrelation):
    for name in ("lorenz", "rucklidge", "logistic"):
        series = batch_of(PROCESS, 100, 4096, systems=(name,), noise=0.0).series
        late = np.mean([np.abs(autocorrelation(series, lag)) for lag in range(1500, 1510)])
        assert late < 0.25, name


def test_kinds_are_the_systems_asked_for(batch_of):
    assert set(batch_of(PROCESS, 40, 8, systems=("henon", "mackey_glass")).kinds) == {"henon", "mackey_glass"}
    assert set(batch_of(PROCESS, 400, 1).kinds) == {*SYSTEMS, "mackey_glass"}


def test_half_the_series_are_noisy_and_noise_0_is_clean(batch_of):
    clean, noisy = (batch_of(PROCESS, 300, 256, systems=("rossler",), noise=noise).series for noise in (0.0, 1.0))
    same = np.array([np.array_equal(a, b) for a, b in zip(clean, noisy, strict=True)])
    assert 0.4 < same.mean() < 0.6
    rough = [np.abs(np.diff(x, n=2, axis=1)).mean(axis=1) / x.std(axis=1) for x in (clean[~same], noisy[~same])]
    assert np.median(rough[1]) > 5 * np.median(rough[0])


@pytest.mark.parametrize("settings", [{"systems": ("lorentz",)}, {"systems": ()}, {"noise": -1}])
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)
