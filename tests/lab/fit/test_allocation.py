"""The second approach: lowest points of budgets, outliers among their runs, and budgets that have no lowest point."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foreloom.lab.fit.allocation import fit_parabolas, second_approach
from foreloom.lab.fit.points import Points


def points_of(losses):
    """Seven sizes at each of four budgets; `losses(budget, log N)`."""
    rows = [
        (N, C / (6 * N), losses(budget, math.log(N)), C)
        for budget, C in enumerate((1e15, 1e16, 1e17, 1e18))
        for N in np.geomspace(1e5, 1e8, 7)
    ]
    N_P, D_P, L_P, C_P = map(np.array, zip(*rows, strict=True))
    return Points(N_P, D_P, L_P, C_P, tuple(map(str, range(len(rows)))), np.arange(len(rows)))


def test_vertices_are_found_and_an_outlier_moves_none():
    points = points_of(lambda budget, log_N: 3 - 0.1 * budget + 0.02 * (log_N - 12.5 - budget) ** 2)
    points.L_P[9] += 0.5
    parabolas = fit_parabolas(points)
    assert [one.vertex for one in parabolas] == pytest.approx([12.5, 13.5, 14.5, 15.5])
    assert parabolas[1].weight_P[2] == 0 and not any(one.reason for one in parabolas)
    assert [6 * one.N * one.D for one in parabolas] == pytest.approx([one.C for one in parabolas])
    assert second_approach(parabolas).a == pytest.approx(1 / math.log(10))


@pytest.mark.parametrize("slope, side", [(-0.05, "above the largest"), (0.05, "below the smallest")])
def test_a_budget_that_is_nearly_a_line_has_no_lowest_point(slope, side):
    bent = lambda budget, log_N: 0.02 * (log_N - 13 - budget) ** 2 if budget else slope * log_N + 1e-6 * log_N**2
    first, *others = fit_parabolas(points_of(lambda budget, log_N: 3 + bent(budget, log_N)))
    assert first.reason == f"its lowest point is at or {side} N; run models there"
    assert sorted([first.N, first.D]) == [0, math.inf]
    assert not any(one.reason for one in others)
