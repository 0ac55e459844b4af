"""A fit recovers a law that was planted, and says so where it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.lab.fit.allocation import first_approach, fit_parabolas, second_approach
from foreloom.lab.fit.analysis import collinearity
from foreloom.lab.fit.frontier import fit_power
from foreloom.lab.fit.learning_rate import fit_basin, fit_trend
from foreloom.lab.fit.parametric import fit_parametric
from foreloom.lab.fit.points import Points
from foreloom.lab.fit.prediction import power_interval

CONSTANTS = [(1.75, 520.0, 1100.0, 0.36, 0.31), (0.3, 20.0, 40.0, 0.2, 0.15)]


def planted(E, A, B, alpha, beta, num_sizes=7) -> Points:
    """Runs at nine budgets, sizes around the best of each, every C = 6ND."""
    a = beta / (alpha + beta)
    best = lambda C: (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (C / 6) ** a
    C, ratio = np.meshgrid(np.logspace(17, 21, 9), np.logspace(-0.6, 0.6, num_sizes))
    C, N = C.ravel(), (best(C) * ratio).ravel()
    D = C / 6 / N
    labels = tuple(map(str, range(len(N))))
    return Points(N, D, E + A * N**-alpha + B * D**-beta, C, labels, np.arange(len(N)))


@pytest.mark.parametrize("constants", CONSTANTS)
def test_three_approaches_find_the_exponents(constants):
    E, A, B, alpha, beta = constants
    points = planted(*constants)
    fit = fit_parametric(points.N_P, points.D_P, points.L_P)
    assert [fit.E, fit.alpha, fit.beta] == pytest.approx([E, alpha, beta], rel=1e-5)
    assert np.allclose([fit.A, fit.B], [A, B], rtol=1e-4)
    assert fit.converged and not fit.at_bound and fit.num_starts == 54 and fit.num_hits > 1
    N, D = fit.optimal(1e22)
    assert np.isclose(6 * N * D, 1e22)
    assert fit.predict(N, D) < min(fit.predict(N * 1.1, D / 1.1), fit.predict(N / 1.1, D * 1.1))
    a = beta / (alpha + beta)
    for robust in (False, True):
        second = second_approach(fit_parabolas(points, robust=robust))
        assert [second.a, second.b] == pytest.approx([a, 1 - a], abs=5e-4)
    first = first_approach(points)
    assert [first.a, first.b] == pytest.approx([a, 1 - a], abs=5e-4)


def test_outliers_do_not_move_a_robust_parabola():
    points = planted(*CONSTANTS[0], num_sizes=9)
    points.L_P[3::20] *= 1.06  # one or none a budget
    a = 0.31 / 0.67
    plain, robust = (second_approach(fit_parabolas(points, robust=robust)).a for robust in (False, True))
    assert abs(robust - a) < 1e-3 < abs(plain - a)


def test_sizes_that_move_together_are_refused():
    points = planted(*CONSTANTS[0])
    assert not collinearity(points)
    for D_P, word in ((20 * points.N_P, "D / N is 20"), (points.N_P**0.74, "D goes as N^0.74")):
        together = Points(points.N_P, D_P, points.L_P, points.C_P, points.labels, points.run_P)
        assert word in collinearity(together)
    one = np.full_like(points.N_P, 1e8)
    assert "every run has one N" in collinearity(
        Points(one, points.D_P, points.L_P, points.C_P, points.labels, points.run_P)
    )


def test_a_power_law_with_a_free_E_is_found_where_it_bends_and_doubted_where_it_does_not():
    C = np.logspace(14, 22, 30)
    law = fit_power(C, 1.7 + 300 * C**-0.12, E=None)
    assert [law.E, law.A, law.exponent] == pytest.approx([1.7, 300, -0.12], rel=1e-4) and not law.doubt
    assert law.cost(float(law.predict(1e18))) == pytest.approx(1e18, rel=1e-6)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.01, 6))
    short = fit_power(C[:6], (1.7 + 300 * C[:6] ** -0.12) * noise, E=None)
    assert short.doubt.startswith("E is not identified")


def test_a_prediction_interval_covers():
    """Of 5 rungs with noise, the next: 95 % within what linearised laws and few runs bear."""
    generator, inside = np.random.default_rng(1), 0
    C = np.logspace(14, 17, 6)
    for _ in range(200):
        loss = (1.7 + 300 * C**-0.12) * np.exp(generator.normal(0, 0.003, 6))
        low, high = power_interval(fit_power(C[:5], loss[:5], E=None), C[:5], loss[:5], float(C[5]))
        inside += low <= loss[5] <= high
    assert inside >= 180


def test_the_best_rate_and_its_trend_are_found():
    widths, rates = [32, 64, 128, 256], 10.0 ** np.arange(-4, -0.9, 0.25)
    best = []
    for width in widths:
        planted_best = 0.3 / width
        loss = 3 + 0.1 * np.log(rates / planted_best) ** 2
        basin = fit_basin(rates, np.where(loss > 6, np.nan, loss), width=width)
        assert basin.best == pytest.approx(planted_best, rel=1e-6) and basin.estimator == "vertex" and not basin.edge
        best.append(basin.best)
    trend = fit_trend("width", widths, best)
    assert [trend.coefficient, trend.exponent] == pytest.approx([0.3, -1], rel=1e-6)
