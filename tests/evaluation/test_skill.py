"""Definitions of the boards: the published figures come back from the published results per task."""

import csv
import math

import numpy as np
import pytest

from foreloom.evaluation import skill, suites
from foreloom.evaluation.published import published_rows
from foreloom.evaluation.skill import ErrorTable, geometric_mean

BASELINE = "seasonal-naive"


def table_of(board, metric, tasks):
    scores = {}
    for row in published_rows(board):
        scores.setdefault(row["model"], {})[row["task"]] = row[metric]
    return ErrorTable.of(scores, tasks)


def tasks_of(suite):
    return [task.name for task in suites.load(suite).tasks]


@pytest.mark.parametrize("benchmark", ["in-domain", "zero-shot"])
def test_chronos_relative_scores(shared, benchmark):
    expected = {}
    for file in (shared / "published" / "chronos").glob("*-agg-rel-scores.csv"):
        for row in csv.DictReader(file.open()):
            if row["benchmark"] == benchmark:
                expected[file.name.removesuffix("-agg-rel-scores.csv"), row["metric"]] = float(row["value"])
    assert len(expected) == 18
    for metric in ("WQL", "MASE"):
        table = table_of("chronos", metric, tasks_of(f"chronos-{benchmark}"))
        means = skill.geometric_means(skill.relative(table, BASELINE).error_TM)
        for model, mean in zip(table.models, means, strict=True):
            if model == BASELINE:
                assert mean == pytest.approx(1)
            else:
                assert mean == pytest.approx(expected[model, metric], rel=1e-6), (model, metric)


def test_chronos_bolt_base_without_the_shared_pack():
    figures = []
    for benchmark in ("in-domain", "zero-shot"):
        for metric in ("WQL", "MASE"):
            table = table_of("chronos", metric, tasks_of(f"chronos-{benchmark}"))
            means = skill.geometric_means(skill.relative(table, BASELINE).error_TM)
            figures.append(round(means[table.models.index("chronos-bolt-base")], 4))
    assert figures == [0.5339, 0.6800, 0.6241, 0.7915]


def fev_order(suite):
    """The order in which fev sorts its tasks: the bootstrap's draws are of positions."""
    tasks = sorted(suites.load(suite).tasks, key=lambda t: (t.config, t.prediction_length, t.season_length, t.targets))
    return [task.name for task in tasks]


def leaked_of(table):
    leaked = {(row["task"], row["model"]) for row in published_rows("fev-bench") if row["trained_on"]}
    return np.array([[(task, model) in leaked for model in table.models] for task in table.tasks])


def test_fev_bench_skill_and_interval():
    table = table_of("fev-bench", "SQL", fev_order("fev-bench"))
    leaked = leaked_of(table)
    assert leaked.sum() == 19
    ratios = skill.fev_ratios(table, BASELINE, leaked_TM=leaked, donor="Chronos-Bolt")
    interval = skill.bootstrap(ratios.error_TM, skill.skills)
    percent = dict(zip(table.models, 100 * interval.estimate, strict=True))
    chronos_2 = table.models.index("Chronos-2")
    assert percent["Chronos-2"] == pytest.approx(47.3, abs=0.05)
    assert 100 * interval.lower[chronos_2] == pytest.approx(42.7, abs=0.05)
    assert 100 * interval.upper[chronos_2] == pytest.approx(52.1, abs=0.05)
    assert percent["TiRex"] == pytest.approx(42.6, abs=0.05)
    assert percent["TimesFM-2.5"] == pytest.approx(42.2, abs=0.05)
    assert percent["Chronos-Bolt"] == pytest.approx(38.9, abs=0.05)
    assert percent["AutoETS"] == pytest.approx(-26.8, abs=0.05)
    assert percent[BASELINE] == 0

    # Win rates as fev 0.10's own `leaderboard` gives them for these nine models.
    wins = skill.bootstrap(ratios.error_TM, skill.win_rates)
    ends = [100 * end[chronos_2] for end in (wins.estimate, wins.lower, wins.upper)]
    assert ends == pytest.approx([88.875, 85.997, 91.625], abs=5e-4)


def test_fev_bench_mase_skill():
    table = table_of("fev-bench", "MASE", tasks_of("fev-bench"))
    ratios = skill.fev_ratios(table, BASELINE, leaked_TM=leaked_of(table), donor="Chronos-Bolt")
    percent = dict(zip(table.models, 100 * skill.skills(ratios.error_TM), strict=True))
    expected = {"Chronos-2": 35.5, "TiRex": 30.0, "TimesFM-2.5": 30.2, "Chronos-Bolt": 26.5}
    assert {model: percent[model] for model in expected} == pytest.approx(expected, abs=0.05)


def test_gift_eval_geometric_means():
    expected = {"Chronos-2": (0.485, 0.698), "TiRex": (0.488, 0.716), "TempoPFN": (0.533, 0.788)}
    figures = {}
    for metric in ("WQL", "MASE"):
        table = table_of("gift-eval", metric, tasks_of("gift-eval"))
        assert table.error_TM.shape == (97, 8)
        means = skill.geometric_means(skill.relative(table, BASELINE).error_TM)
        figures[metric] = dict(zip(table.models, means, strict=True))
    for model, (wql, mase) in expected.items():
        assert figures["WQL"][model] == pytest.approx(wql, abs=5e-4)
        assert figures["MASE"][model] == pytest.approx(mase, abs=5e-4)
    assert figures["WQL"]["Toto-2.0-22m"] == pytest.approx(0.496, abs=5e-4)


def test_win_rates_count_ties_half():
    error_TM = np.array([[1.0, 2.0, 2.0], [1.0, 1.0, 3.0]])
    assert skill.pairwise_win_rates(error_TM) == pytest.approx(
        np.array([[0.5, 0.75, 1.0], [0.25, 0.5, 0.75], [0.0, 0.25, 0.5]])
    )
    assert skill.win_rates(error_TM) == pytest.approx(np.array([0.875, 0.5, 0.125]))


def test_ranks_share_ties_and_put_failures_last():
    assert skill.mean_ranks(np.array([[1.0, 2.0, 2.0], [math.nan, 1.0, 3.0]])) == pytest.approx([2.0, 1.75, 2.25])


def test_the_board_is_clipped_and_failures_count_as_the_baseline():
    table = ErrorTable(("a", "b"), ("ours", "base"), np.array([[1e-9, 1.0], [math.nan, 2.0]]))
    assert skill.fev_ratios(table, "base").error_TM == pytest.approx(np.array([[0.01, 1.0], [1.0, 1.0]]))


def test_a_leaked_score_is_that_of_the_donor_and_the_donor_must_be_clean():
    table = ErrorTable(("a",), ("ours", "donor", "base"), np.array([[0.1, 0.8, 1.0]]))
    leaked = np.array([[True, False, False]])
    assert skill.fev_ratios(table, "base", leaked_TM=leaked, donor="donor").error_TM[0, 0] == pytest.approx(0.8)
    with pytest.raises(ValueError, match="donor was trained on the data of 'a'"):
        skill.fev_ratios(table, "base", leaked_TM=leaked[:, [1, 0, 2]], donor="donor")


def test_a_task_without_a_baseline_error_has_no_ratio():
    table = ErrorTable(("a",), ("ours", "base"), np.array([[0.5, 0.0]]))
    assert np.isnan(skill.relative(table, "base").error_TM).all()


def test_intervals_hold_the_estimate_and_narrow_with_tasks():
    rng = np.random.default_rng(0)
    error_TM = rng.lognormal(size=(400, 2))
    few = skill.bootstrap(error_TM[:25], skill.skills)
    many = skill.bootstrap(error_TM, skill.skills)
    assert (few.lower < few.estimate).all() and (few.estimate < few.upper).all()
    assert ((many.upper - many.lower) < 0.5 * (few.upper - few.lower)).all()
    again = skill.bootstrap(error_TM, skill.skills)
    assert (again.lower == many.lower).all()


@pytest.mark.parametrize("statistic", [skill.skills, skill.pairwise_win_rates])
def test_intervals_are_the_same_drawn_in_parts_and_at_once(monkeypatch, statistic):
    error_TM = np.random.default_rng(0).lognormal(size=(37, 3))
    held = []

    def seen(error):
        held.append(error.size)
        return statistic(error)

    whole = skill.bootstrap(error_TM, seen)
    assert max(held) == 1000 * 37 * 3
    for num in (1, 7, 300):
        held.clear()
        monkeypatch.setattr(skill, "MOST_DRAWN", num * error_TM.size + 5)
        parts = skill.bootstrap(error_TM, seen)
        assert max(held) == num * error_TM.size and sum(held) == 1001 * error_TM.size
        assert (parts.lower == whole.lower).all() and (parts.upper == whole.upper).all()


def test_geometric_mean_of_nothing_of_zero_and_of_the_unknown():
    assert np.isnan(geometric_mean([]))
    assert geometric_mean([0.25, 4.0]) == pytest.approx(1.0)
    assert geometric_mean([0.0, 4.0]) == 0
    assert np.isnan(geometric_mean([1.0, float("nan")]))
