"""Exponential smoothing run forward: one recursion gives each variant as its textbook writes it."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic import ets
from foreloom.data.synthetic.ets import PROCESS
from foreloom.data.synthetic.process import Draws


def _textbook(kind, level, slope, season, alpha, beta, gamma, damping, shocks):
    """Hyndman et al. 2008, the rows of tables 2.2 and 2.3 for some variants; season is a list, oldest first."""
    season, values = list(season), []
    for shock in shocks:
        base, s = level + damping * slope, season.pop(0)
        if kind == "ETS(A,A,A)":
            values.append(base + s + shock)
            level, slope, new = base + alpha * shock, slope + beta * shock, s + gamma * shock
        elif kind == "ETS(M,Ad,M)":
            values.append(base * s * (1 + shock))
            level, slope = base * (1 + alpha * shock), damping * slope + beta * base * shock
            new = s * (1 + gamma * shock)
        else:
            assert kind == "ETS(M,N,A)"
            values.append((level + s) * (1 + shock))
            level, new = level + alpha * (level + s) * shock, s + gamma * (level + s) * shock
        season.append(new)
    return np.array(values)


@pytest.mark.parametrize("kind", ["ETS(A,A,A)", "ETS(M,Ad,M)", "ETS(M,N,A)"])
def test_a_variant_is_the_textbooks(batch_of, kind):
    settings = PROCESS.settings(periods=(4,))
    made = batch_of(PROCESS, 400, 60, periods=(4,))
    item = int(np.flatnonzero(made.kinds == kind)[0])
    draws = Draws(0, "ets", np.array([item]))
    variant = ets._variant(draws, settings)
    alpha, beta, gamma = (float(value[0]) for value in ets._smoothing(draws, variant))
    damping = float(draws.uniform("damping", low=0.8, high=0.98)[0]) if "Ad" in kind else 1.0
    slope = 0.003 * float(draws.normal("slope")[0])
    first = ets._first_season(draws, variant, np.array([4]), 4)[:, 0]
    start = int(draws.uniform("season/start")[0] * 4)
    deviation = 0.2 * draws.log_uniform("noise", 1, low=0.01, high=1.0)
    shocks = (deviation * draws.normal("shock", 60))[0]
    expected = _textbook(kind, 1.0, slope, np.roll(first, -start), alpha, beta, gamma, damping, shocks)
    unit = made.series[item, 0] / expected[0]
    np.testing.assert_allclose(made.series[item], unit * expected, rtol=1e-9)


def test_smoothing_parameters_lie_in_the_usual_region():
    draws = Draws(0, "ets", np.arange(2000))
    variant = ets._variant(draws, PROCESS.settings())
    alpha, beta, gamma = ets._smoothing(draws, variant)
    assert ((alpha > 0) & (alpha < 1)).all()
    assert (beta[variant.trend_B] < alpha[variant.trend_B]).all()
    assert (gamma < 1 - alpha).all()


def test_multiplied_variants_are_positive(batch_of):
    made = batch_of(PROCESS, 400, 2048)
    multiplied = np.char.startswith(made.kinds, "ETS(M") & ~np.char.endswith(made.kinds, "A)")
    assert made.series[multiplied].min() > 0


def test_shares_choose_the_variants(batch_of):
    assert set(batch_of(PROCESS, 60, 8, trending=0.0, seasonal=0.0).kinds) == {"ETS(A,N,N)", "ETS(M,N,N)"}
    assert set(batch_of(PROCESS, 60, 8, multiplicative=0.0, seasonal=1.0, trending=1.0).kinds) == {
        "ETS(A,A,A)",
        "ETS(A,Ad,A)",
    }
    assert len(set(batch_of(PROCESS, 600, 8).kinds)) == 15


def test_without_shocks_a_season_comes_again(batch_of):
    series = batch_of(PROCESS, 100, 96, noise=0.0, trending=0.0, periods=(12,), seasonal=1.0).series
    np.testing.assert_allclose(series[:, 12:], series[:, :-12])
    assert np.mean(np.ptp(series, axis=1) > 0) > 0.95


@pytest.mark.parametrize("settings", [{"noise": -0.1}, {"periods": ()}, {"trending": 7}, {"multiplicative": -1}])
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)
