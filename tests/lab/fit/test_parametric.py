"""The third approach, on the points read off Hoffmann et al.'s figure, and where it must not be believed."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from foreloom.lab.fit.parametric import NAMES, bootstrap, fit_parametric, objective_at
from foreloom.lab.fit.points import read_points


@pytest.fixture(scope="module")
def oracle(request):
    from conftest import SHARED

    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data pack at {SHARED}")
    folder = SHARED / "oracles" / "scaling" / "chinchilla"
    points = read_points(folder / "svg_extracted_data.csv").drop_worst(5)
    return points, json.loads((folder / "expected.json").read_text())


@pytest.fixture(scope="module")
def fitted(oracle):
    points, _ = oracle
    return fit_parametric(points.N_P, points.D_P, points.L_P)


def test_the_optimum_is_reached_from_every_start(oracle, fitted):
    points, expected = oracle
    ours = expected["ours_huber_sum_drop5"]
    assert len(points) == 240
    assert fitted.objective == pytest.approx(0.00101827402, rel=1e-8)
    for name in NAMES:
        assert getattr(fitted, name) == pytest.approx(ours[name], rel=1e-6)
    assert fitted.a == pytest.approx(ours["a_exp"], rel=1e-7)
    assert (fitted.num_starts, fitted.num_hits, fitted.converged, fitted.at_bound) == (54, 54, True, ())
    for C, best in expected["allocation"]["ours"].items():
        assert fitted.optimal(float(C)) == pytest.approx((best["N"], best["D"]), rel=1e-5)


def test_published_constants_have_the_objective_that_was_computed(oracle, fitted):
    points, expected = oracle
    arrays = points.N_P, points.D_P, points.L_P
    epoch = {name: expected["published"]["epoch"][name] for name in NAMES}
    at_epoch = objective_at(dataclasses.replace(fitted, **epoch), *arrays)
    assert at_epoch == pytest.approx(expected["objective_values_at"]["epoch_published"]["obj_sum"], rel=2e-4)
    rounded = expected["published"]["hoffmann_rounded"]
    at_rounded = objective_at(dataclasses.replace(fitted, **rounded), *arrays)
    assert at_rounded == pytest.approx(expected["objective_values_at"]["hoffmann_rounded"]["obj_sum"], rel=1e-6)


def test_absolute_deviations_reach_the_published_row(oracle):
    points, expected = oracle
    lad = fit_parametric(points.N_P, points.D_P, points.L_P, loss="lad")
    for name in NAMES:
        assert getattr(lad, name) == pytest.approx(expected["published"]["epoch"][name], rel=2e-5)
    residual = np.sort(np.abs(lad.residuals(points.N_P, points.D_P, points.L_P)))
    assert residual[4] < 1e-12 < residual[5], "an optimum of absolute deviations goes through five points"
    reference = dataclasses.replace(lad, **{name: expected["ours_LAD_drop5"][name] for name in NAMES})
    assert lad.objective <= objective_at(reference, points.N_P, points.D_P, points.L_P)


def test_intervals_of_drawn_runs(oracle, fitted):
    points, expected = oracle
    drawn = bootstrap(fitted, points.N_P, points.D_P, points.L_P, num=250)
    for name, se in expected["bootstrap1000_pairs"]["se"].items():
        own = np.std([getattr(one, name.removesuffix("_exp")) for one in drawn])
        assert own == pytest.approx(se, rel=0.15), name


def test_synthetic_budgets(shared):
    folder = shared / "oracles" / "scaling" / "isoflop_synthetic_A"
    expected = json.loads((folder / "expected.json").read_text())["approach3_noisy_with_outliers"]
    points = read_points(folder / "points.csv")
    fit = fit_parametric(points.N_P, points.D_P, points.L_P)
    assert fit.objective == pytest.approx(expected["obj"], rel=1e-8)
    for name in NAMES:
        assert getattr(fit, name) == pytest.approx(expected[name], rel=1e-6)


def test_what_cannot_be_fitted_is_refused_or_flagged():
    N = np.logspace(6, 9, 12)
    D = N[::-1] * 10
    with pytest.raises(ValueError, match="5 points for the five constants"):
        fit_parametric(N[:5], D[:5], N[:5] ** -0.1)
    with pytest.raises(ValueError, match="the loss of every point must be a positive number"):
        fit_parametric(N, D, np.where(N < 2e6, np.nan, 1.0))
    without_E = fit_parametric(N, D, 50 * N**-0.2 + 70 * D**-0.25 - 0.5)
    assert "E" in without_E.at_bound
    fixed = fit_parametric(N, D, 1.5 + 50 * N**-0.2 + 70 * D**-0.25, E=1.5)
    assert math.isclose(fixed.E, 1.5) and fixed.num_starts == 9 and not fixed.at_bound


def test_losses_that_nothing_moves_have_no_best_size_and_no_traceback():
    N_P, D_P = (one.ravel() for one in np.meshgrid([1e6, 1e7, 1e8], [2e7, 2e8, 2e9]))
    flat = fit_parametric(N_P, D_P, np.full(9, 3.0))
    assert {"alpha", "beta"} <= set(flat.at_bound)
    for found in (flat, dataclasses.replace(flat, A=2.0, B=1e-9), dataclasses.replace(flat, A=1e-9, B=2.0)):
        N, D = found.optimal(1e18)
        assert not math.isnan(N) and not math.isnan(D)
    assert dataclasses.replace(flat, A=2.0, B=1e-9, alpha=1e-4, beta=1e-4).optimal(1e18) == (math.inf, 0)
