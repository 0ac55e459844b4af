"""benchmarks/zero_shot.yaml: every data set of the pack is scored, and as the script that writes it says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import yaml

from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.plan import plan_windows
from foreloom.evaluation.tasks import read_tasks

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TASKS = BENCHMARKS / "zero_shot.yaml"


@pytest.fixture(scope="module")
def tasks(shared):
    return {task.name: task for task in read_tasks(TASKS, shared / "data")}


def test_the_file_is_what_the_script_makes_of_the_pack(shared):
    script = runpy.run_path(str(BENCHMARKS / "zero_shot_tasks.py"))
    assert script["write"](shared / "data") == TASKS.read_text()
    names = set()
    for half in script["HALVES"]:
        text = (BENCHMARKS / f"zero_shot_{half}.yaml").read_text()
        assert script["write"](shared / "data", half) == text
        names |= {task["name"] for task in yaml.safe_load(text)["tasks"]}
    assert sorted(names) == sorted(task["name"] for task in yaml.safe_load(TASKS.read_text())["tasks"])


def test_no_data_set_and_no_series_is_left_out(shared, tasks):
    sets = {path.parent for path in (shared / "data").glob("*/data.parquet")}
    assert {path.parent for task in tasks.values() for path in task.paths} == sets
    targets = 0
    for task in tasks.values():
        plan = plan_windows(task, task.open(), 256, 256)
        assert not plan.num_skipped, "no series is too short"
        targets += len(set(zip(plan.source_N, plan.item_N, plan.variate_N, strict=True)))
    metas = [yaml.safe_load((folder / "meta.yaml").read_text()) for folder in sets]
    held_twice = 39  # tsdl's, in the other sets
    assert targets == sum(meta["n_series"] * meta["n_variates"] for meta in metas) - held_twice


def test_seasonal_naive_has_its_published_scores(shared, tasks):
    """Chronos, seasonal-naive-zero-shot.csv and -in-domain.csv, as the pack repeats them."""
    published = {"ETTh": ("etth1", "chronos_pooled"), "ETTm": ("ettm1", "chronos_pooled"), "nn5": ("nn5", "")}
    published |= {name: (name, "") for name in ("car_parts", "exchange_rate", "m1_yearly", "m4_weekly")}
    result = evaluate(SeasonalNaive(), [tasks[name] for name in published])
    for scores in result.tasks:
        folder, pool = published[scores.name]
        meta = yaml.safe_load((shared / "data" / folder / "meta.yaml").read_text())
        expected = meta[pool] if pool else meta["seasonal_naive"]
        assert scores.scores["MASE"] == pytest.approx(expected["published_mase"], rel=2e-6)
        assert scores.scores["WQL"] == pytest.approx(expected["published_wql"], rel=2e-6)
