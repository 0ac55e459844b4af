"""A fit recovers a law that was planted."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.lab.fit.parametric import fit_parametric


def grid():
    """N and D of nine budgets of six sizes each, every C = 6ND."""
    C, ratio = np.meshgrid(np.logspace(17, 21, 9), np.logspace(-0.6, 0.6, 6))
    N = 0.18 * C**0.46 * ratio
    return N.ravel(), (C / 6 / N).ravel()


@pytest.mark.parametrize(
    ("E", "A", "B", "alpha", "beta"), [(1.75, 520.0, 1100.0, 0.36, 0.31), (0.3, 20.0, 40.0, 0.2, 0.15)]
)
def test_the_third_approach_recovers_its_constants(E, A, B, alpha, beta):
    N, D = grid()
    fit = fit_parametric(N, D, E + A * N**-alpha + B * D**-beta)
    assert (fit.E, fit.alpha, fit.beta) == pytest.approx((E, alpha, beta), rel=1e-6)
    assert pytest.approx([A, B], rel=1e-5) == [fit.A, fit.B]
    assert fit.converged and not fit.at_bound and fit.num_starts == 54 and fit.num_hits >= 1
    best_N, best_D = fit.optimal(1e22)
    assert 6 * best_N * best_D == pytest.approx(1e22)
    assert fit.predict(best_N, best_D) < min(
        fit.predict(best_N * 1.1, best_D / 1.1), fit.predict(best_N / 1.1, best_D * 1.1)
    )
