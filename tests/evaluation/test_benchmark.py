"""The benchmark in training: what it leaves, when it is due, how it goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from foreloom import run
from foreloom.config.located import RecipeError
from foreloom.distributed.process import Process
from foreloom.evaluation.baselines import Naive, SeasonalNaive
from foreloom.evaluation.benchmark import TrainingBenchmark, average, json_path, read_records
from foreloom.evaluation.config import BenchmarkConfig
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.tasks import EvaluationTask, read_tasks
from foreloom.forecast import from_pretrained

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
ALONE = Process(0, 1, 0, torch.device("cpu"))
LITE = [EvaluationTask(name="births", path=DATA / "us_births.parquet", prediction_length=7, season_length=7)]
EXTENDED = [*LITE, EvaluationTask(name="trips", path=DATA / "vehicle_trips.parquet", prediction_length=7)]


def two_tiers(run_dir, forecaster=Naive, **settings):
    config = BenchmarkConfig(
        **{"steps": 2, "tasks": "a", "extended_steps": 4, "extended_tasks": "b", "metric": "composite"} | settings
    )
    tasks = {"lite": LITE, "extended": EXTENDED} if config.extended_steps else {"lite": LITE}
    model = torch.nn.Linear(1, 1)
    benchmark = TrainingBenchmark(config, tasks, run_dir, lambda _: forecaster(), ALONE, scores_start=False)
    benchmark.check(model)
    return benchmark, lambda step, tier: benchmark.run(step, tier, model, lambda: 100.0)


def test_tiers_are_due_at_their_steps_and_last_and_once(tmp_path):
    benchmark, score = two_tiers(tmp_path)
    due = {step: benchmark.due(step, is_last=step == 7) for step in range(8)}
    assert due == {0: [], 1: [], 2: ["lite"], 3: [], 4: ["lite", "extended"], 5: [], 6: ["lite"],
                   7: ["lite", "extended"]}  # fmt: skip
    score(4, "lite")
    assert benchmark.due(4, is_last=False) == ["extended"]
    assert TrainingBenchmark(benchmark.config, {}, tmp_path, Naive, ALONE, scores_start=True).due(0, is_last=False) == [
        "lite",
        "extended",
    ]


def test_records_files_and_table(tmp_path):
    forecasters = iter([Naive, SeasonalNaive, Naive, Naive, Naive])
    _, score = two_tiers(tmp_path, lambda: next(forecasters)())
    first, second = score(2, "lite"), score(4, "lite")
    extended = score(4, "extended")
    assert first.scores["composite"] == pytest.approx(0.6 * first.scores["wql"] + 0.4 * first.scores["mase"])
    assert first.best_step == 2 and first.previous is None and second.previous == first.scores
    winner = min((first, second), key=lambda record: record.scores["composite"])
    assert (second.best_step, second.best_score) == (winner.step, winner.scores["composite"])
    assert extended.previous is None and extended.best_step == 4, "tiers are judged apart"
    assert extended.scores["wql"] == pytest.approx(np.mean([its["wql"] for its in extended.tasks.values()]))
    spent = first.seconds + second.seconds + extended.seconds
    assert extended.training_share == pytest.approx(spent / 100)

    written = json.loads((tmp_path / "benchmark" / "step-00000004-extended.json").read_text())
    assert written["tier"] == "extended" and written["tasks"] == extended.tasks
    assert read_records(tmp_path) == [first, second, extended]
    rows = list(csv.DictReader((tmp_path / "benchmark" / "benchmark.csv").open(newline="")))
    assert [(row["step"], row["tier"]) for row in rows] == [("2", "lite"), ("4", "lite"), ("4", "extended")]
    assert len({tuple(row) for row in rows}) == 1
    assert [row["trips mase"] == "" for row in rows] == [True, True, False]
    assert float(rows[2]["births wql"]) == extended.tasks["births"]["wql"]


def test_a_resumed_run_overwrites_what_came_after(tmp_path):
    _, score = two_tiers(tmp_path)
    first = [score(2, "lite"), score(4, "lite"), score(4, "extended"), score(6, "lite")][0]
    again, score = two_tiers(tmp_path, SeasonalNaive)
    again.resume(4)
    assert not json_path(tmp_path, 6, "lite").exists() and len(read_records(tmp_path)) == 3
    assert again.due(4, is_last=False) == [] and again.due(6, is_last=False) == ["lite"]
    sixth = score(6, "lite")
    assert sixth.previous == first.scores != sixth.scores
    table = (tmp_path / "benchmark" / "benchmark.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["step", "2", "4", "4", "6"]
    again.resume(-1)
    assert read_records(tmp_path) == []


class Broken(Naive):
    def point_forecast(self, filled_RL, prediction_length):
        return np.full((len(filled_RL), prediction_length), np.nan)


def test_a_broken_forecast_costs_a_warning(tmp_path, caplog):
    _, score = two_tiers(tmp_path, Broken)
    assert score(2, "lite") is None
    assert "Benchmark (lite) after step 2: no score. The forecast of series" in caplog.text
    assert not (tmp_path / "benchmark").exists()


def test_covariates_passed_over_cost_a_warning_before_the_run(tmp_path, caplog):
    table = {"item_id": ["a"], "target": [[1.0] * 9], "past__promo": [[0.0] * 9]}
    pq.write_table(pa.table(table), tmp_path / "promo.parquet")
    shown = [
        EvaluationTask(name=n, path=tmp_path / "promo.parquet", prediction_length=2, covariates=n == "b") for n in "ab"
    ]
    config = BenchmarkConfig(steps=1, tasks="a", extended_steps=1, extended_tasks="b")
    tiers = {"lite": shown, "extended": shown}
    TrainingBenchmark(config, tiers, tmp_path, lambda _: Naive(), ALONE, scores_start=False).check(
        torch.nn.Linear(1, 1)
    )
    assert caplog.messages == ["benchmark: the model sees one series at a time and passes over the covariates of b"]


def test_a_disk_that_refuses_costs_a_warning(tmp_path, caplog):
    (tmp_path / "benchmark").touch()
    _, score = two_tiers(tmp_path)
    assert score(2, "lite").step == 2
    assert "the benchmark of step 2 could not be written" in caplog.text


def test_the_average_leaves_out_what_is_not_defined():
    tasks = {"a": {"wql": 1.0, "mase": float("nan")}, "b": {"wql": 3.0, "mase": 5.0}}
    assert average(tasks, (0.5, 0.1)) == {"wql": 2.0, "mase": 5.0, "composite": 1.5}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["benchmark.tasks=t.yaml"], "benchmark: tasks has no effect while benchmark.steps is 0"),
        (["benchmark.metric=mase", "benchmark.batch_size=3"], "metric and batch_size have no effect"),
        (["benchmark.steps=2"], "give either tasks or suite"),
        (["benchmark.steps=2", "benchmark.suite=chronos-lite", "benchmark.tasks=t.yaml"], "give either tasks or suite"),
        (["benchmark.steps=2", "benchmark.tasks=t", "benchmark.extended_suite=x"], "extended_suite has no effect"),
        (["benchmark.steps=2", "benchmark.suite=chronos-lite"], "chronos-lite: say in benchmark.data_root where"),
        (["benchmark.steps=2", "benchmark.suite=chronos-light"], "no such suite. Did you mean chronos-lite?"),
        (["benchmark.steps=2", "benchmark.tasks=t", "benchmark.weights=[0, 0]"], "must not be negative nor all 0"),
        (["checkpoint.best_metric=mase"], "there is no mase without benchmark.steps; set it"),
        (["checkpoint.best_metric=extended_mase"], "there is no extended_mase without benchmark.extended_steps"),
        (["checkpoint.best_metric=crps"], "there is no score 'crps'. This run has none"),
    ],
)
def test_settings_that_contradict_each_other(settings, sentence):
    with pytest.raises(RecipeError, match=sentence):
        run.load("chronos2-test", settings)


def test_missing_data_are_told_before_the_run(tmp_path):
    settings = ["benchmark.steps=2", "benchmark.suite=chronos-lite", f"benchmark.data_root={tmp_path}"]
    with pytest.raises(RecipeError, match=r"5 of the 5 tasks of chronos-lite have no data below .*m4_hourly.*fetch"):
        run.load("chronos2-test", settings)
    run.load("chronos2-test", settings, need_data=False)


def test_scores_equal_evaluate_on_the_saved_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(
        "tasks:\n"
        f"  - {{name: births, path: {DATA / 'us_births.parquet'}, prediction_length: 30, season_length: 7}}\n"
        f"  - {{name: trips, path: {DATA / 'vehicle_trips.parquet'}, prediction_length: 20, num_rolls: 2}}\n"
    )
    settings = [
        "training.steps=3", "training.batch_size=6", "training.device=cpu", "data.context_length=64",
        "data.prediction_length=16", "model.num_layers=1", "model.d_model=32", "model.d_ff=32",
        "model.dropout_rate=0.2", "monitoring.log_steps=1", "benchmark.steps=2", f"benchmark.tasks={tasks}",
        "benchmark.metric=mase", "checkpoint.keep_best=1", "training.save_total_limit=1", "training.seed=3",
    ]  # fmt: skip
    folder = tmp_path / "run"
    run.train("chronos2-test", settings, out=folder)
    records = read_records(folder)
    assert [record.step for record in records] == [2, 3]
    kept = sorted((folder / "checkpoints").glob("step-*"))
    assert len(kept) <= 2
    for checkpoint in kept:
        step = int(checkpoint.name[-8:])
        record = next(one for one in records if one.step == step)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        assert manifest["scores"] == record.scores and record.scores.keys() == {"wql", "mase", "composite"}
        saved = evaluate(from_pretrained(checkpoint, device="cpu").forecaster, read_tasks(tasks))
        again = {task.name: {"wql": task.scores["WQL"], "mase": task.scores["MASE"]} for task in saved.tasks}
        assert again == record.tasks, "to the last bit"
    log = (folder / "training.log").read_text()
    assert "Benchmark (lite, 2 tasks) after step 2: wql=" in log and "best mase: this one" in log
    assert "2 tasks every 2 steps" in log
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["kind"] == "benchmark"] == [2, 3]
    tags = _tensorboard_tags(folder)
    assert {"benchmark/avg_wql", "benchmark/avg_mase", "benchmark/births/wql", "benchmark/trips/mase"} <= tags


def _tensorboard_tags(folder: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return set(accumulator.Tags()["scalars"])
