"""Frontiers, exponents and gains, against what was computed of the old repository's runs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from foreloom.lab.fit.ablation import compare_variants, read_variants, variants_of
from foreloom.lab.fit.comparison import Course, exponents, gain_of
from foreloom.lab.fit.frontier import PowerLaw, compute_equivalent_gain, fit_power, frontier, loss_multiplier, pareto
from foreloom.lab.fit.runs import read_study


def test_a_frontier_is_strict():
    x = np.array([1.0, 1.0, 2.0, 3.0, 3.0, 4.0])
    loss = np.array([5.0, 4.0, 4.0, 3.5, 3.0, 3.0])
    assert pareto(x, loss).tolist() == [1, 4]
    # 6ND of one budget, by N: the cheapest by rounding is none of another budget.
    N = np.array([1.1e7, 2.3e7, 4.7e7, 8.9e7])
    C = 6 * N * (1e17 / 6 / N)
    assert len(np.unique(C)) > 1 and pareto(C, np.array([3.2, 3.0, 3.1, 3.3])).tolist() == [1]


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-3])
def test_the_interval_of_a_free_E_holds_it_and_ends_where_the_likelihood_does(noise):
    x = np.geomspace(1e16, 1e20, 8)
    loss = (1.8 + 60 * (x / 1e12) ** -0.2) * np.exp(noise * np.random.default_rng(1).normal(size=8))
    law = fit_power(x, loss, E=None)
    assert law.E_interval[0] <= law.E <= law.E_interval[1]
    assert abs(law.E - 1.8) <= 20 * noise + 1e-6
    misfit = lambda E: curve_fit(
        lambda log_x, level, slope: np.log(E + np.exp(level + slope * (log_x - 41))),
        np.log(x), np.log(loss), p0=(2, -0.2), full_output=True,
    )[2]["fvec"]  # fmt: skip
    least, *ends = (float(np.sum(misfit(E) ** 2)) for E in (law.E, *law.E_interval))
    if noise:
        assert ends == pytest.approx([least * (1 + stats.f.ppf(0.95, 1, 5) / 5)] * 2, rel=0.05)


def test_power_laws_refuse_what_is_none():
    with pytest.raises(ValueError, match="1 different sizes: a power law needs two, one with a free E four"):
        fit_power(np.ones(3), np.array([3.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match="E = 2 is not below the lowest loss, 2"):
        fit_power(np.array([1.0, 2.0]), np.array([3.0, 2.0]), E=2.0)


@pytest.mark.parametrize("kind", ["historical", "modern"])
def test_the_old_repository(shared, kind):
    folder = shared / "oracles" / "scaling" / "experimental_progress" / "curves"
    expected = json.loads((folder / f"{kind}_trend_expected.json").read_text())
    study = read_study(folder / f"{kind}_trend", {f"{width}d": N for width, N in expected["params"].items()})
    window = (1e14, 5e17)
    for compute, name in (("counted", "total_flops_profiler"), ("6nd", "exact_6ND")):
        wanted = expected["frontier_E1p9_1e14_5e17"][name]
        x, loss, _ = frontier(study.runs, compute=compute, window=window)
        assert len(x) == wanted["n_frontier"]
        for space, of in (("log", "loglog"), ("linear", "linear_lsq")):
            law = fit_power(x, loss, E=1.9, space=space)
            assert [law.A, law.exponent] == pytest.approx([wanted[of]["A"], wanted[of]["exponent"]], rel=1e-5)
    for E, exponent in expected["exponent_vs_assumed_E"].items():
        assert fit_power(x, loss, E=float(E)).exponent == pytest.approx(exponent, rel=1e-9)
    for text, exponent in expected["exponent_vs_window"].items():
        low, high = map(float, text.split("-"))
        x, loss, _ = frontier(study.runs, window=(low, high))
        assert fit_power(x, loss, E=1.9).exponent == pytest.approx(exponent, rel=1e-9)
    ends = study.points()
    law = fit_power(ends.C_P, ends.L_P, E=1.9)
    assert [law.A, law.exponent] == pytest.approx([expected["endpoints_E1p9"][name] for name in ("A", "exponent")])
    for run in study.runs:
        ratio = expected["profiler_over_6ND_last_row"][run.label[:-1]]
        assert run.counted_T[-1] / run.flops == pytest.approx(ratio, rel=6e-3)
    rows = exponents(Course(kind, study.runs, "6nd", window), num_bootstrap=30)
    assert all(row.doubt for row in rows if row.law.E_interval), "E is not identified by these data"
    assert all(row.interval[0] < row.law.exponent < row.interval[1] for row in rows if row.interval)


def test_headline_constants(shared):
    expected = json.loads((shared / "oracles/scaling/experimental_progress/headline_constants.json").read_text())
    law = lambda name: PowerLaw(expected[name]["A"], expected[name]["exp"], 0.0, 2, 2, 0.0)
    for other, key in (("transformer_2017", "ceg_lstm_to_2017"), ("transformer_modern", "ceg_lstm_to_modern")):
        for C, gain in expected[key].items():
            assert compute_equivalent_gain(law("lstm"), law(other), float(C)) == pytest.approx(gain, rel=2e-3)


def test_gains_are_told_only_where_both_were_measured(shared):
    folder = shared / "oracles" / "scaling" / "experimental_progress" / "curves"
    old, new = (
        Course(kind, read_study(folder / f"{kind}_trend").runs, "6nd", (0, math.inf))
        for kind in ("historical", "modern")
    )
    gain = gain_of(old, new, E=1.9, num_bootstrap=30)
    assert np.all((gain.low_G < gain.gain_G) & (gain.gain_G < gain.high_G)) and 1 < gain.gain_G[-1] < gain.gain_G[0] < 4
    assert gain.C_G[-1] * gain.gain_G[-1] <= old.points()[0].max() * (1 + 1e-9)


def test_ablation(shared):
    folder = shared / "oracles" / "scaling" / "experimental_progress" / "ablation"
    expected = json.loads((folder / "expected.json").read_text())
    found = compare_variants(read_variants(folder / "alg_mult_final_losses.csv"), "rms", E=1.8, gamma=0.155)
    assert {one.name for one in found} == set(expected["variants"])
    for one in found:
        wanted = expected["variants"][one.name]
        assert [one.loss.mean, one.deviation, one.loss.num_values, one.multiplier] == pytest.approx(
            list(wanted.values())
        )
        assert one.name == "rms" or one.multiplier_interval[0] < one.multiplier < one.multiplier_interval[1]
    diverged = [{"variant": one.name, "seed": int(seed)} for one in found for seed in one.diverged]
    key = lambda row: row["variant"]
    assert sorted(diverged, key=key) == sorted(expected["nan_seeds"], key=key)


def test_variants(tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("variant, seed, loss\na,1,3.0\na,2,3.2\nb,1,2.8\nb,2,\nc,1,\n")
    a, b = sorted(compare_variants(read_variants(path), "a", E=1.0, gamma=0.2), key=lambda one: one.name)
    assert b.multiplier == pytest.approx(loss_multiplier(3.1, 2.8, E=1.0, gamma=0.2)) and b.multiplier > 1
    assert (b.multiplier_interval, b.deviation, b.diverged) == (None, None, ("2",)), "one seed has no spread"
    for num, known in ((2, False), (3, True)):
        equal = {name: {str(seed): loss for seed in range(num)} for name, loss in (("a", 3.0), ("b", 2.8))}
        found = compare_variants(equal, "a", E=1.0, gamma=0.2)[0]
        assert found.name == "b" and (found.multiplier_interval is not None) == known, "two may be equal by chance"
    assert math.isnan(loss_multiplier(3.0, 0.9, E=1.0, gamma=0.2)) and a.multiplier == 1
    for base, sentence in (
        ("d", "no variant 'd' to compare with; there are a, b, c"),
        ("c", "no seed of 'c' has a fin"),
    ):
        with pytest.raises(ValueError, match=sentence):
            compare_variants(read_variants(path), base)
    path.write_text("variant,seed,loss\na,1,3.0\na,1,3.2\n")
    with pytest.raises(ValueError, match=r"losses.csv:3: seed 1 of a is there twice"):
        read_variants(path)
    path.write_text("name,seed,loss\n")
    with pytest.raises(ValueError, match="expected columns variant, seed and one of .*; there are name, seed, loss"):
        read_variants(path)


def test_no_run_of_a_variant_takes_the_place_of_another(tmp_path):
    for label, loss in (("a", 3.0), ("a_seed_1", 2.0)):
        (tmp_path / f"{label}.csv").write_text(f"step,validation_loss,tokens,theoretical_flops\n9,{loss},1000,60000\n")
    assert variants_of(read_study(tmp_path)) == {"a": {"a": 3.0, "1": 2.0}}
    (tmp_path / "config_a.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(ValueError, match="a_seed_1 is a second run of a with seed 1; remove one|a is a second run"):
        variants_of(read_study(tmp_path))
