"""What is scored without being asked for, and how scores become two numbers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom import run
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.report.ab import scores

RECIPE = """
model: {family: chronos2, size: test}
data:
  sources: [{path: long.parquet, holdout: 20}, {path: short.parquet, holdout: 6}, {path: all.parquet}]
  context_length: 32
  prediction_length: 12
training: {steps: 1}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    steps = np.arange(60.0) % 5 + 1
    for name in ("long", "short", "all"):
        pq.write_table(pa.table({"target": [steps.tolist()] * 3}), tmp_path / f"{name}.parquet")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: run.load(path, overrides)


def test_the_end_of_what_is_held_out_is_scored(recipe):
    tasks = scores.held_out_tasks(recipe())
    assert [(task.name, task.prediction_length, task.num_rolls) for task in tasks] == [("long", 12, 1), ("short", 6, 1)]
    own = recipe("validation.steps=1", "validation.sources=[{path: all.parquet}]")
    assert [(task.name, task.prediction_length) for task in scores.held_out_tasks(own)] == [("all", 12)]


def test_very_many_series_are_not_scored_unasked(recipe, monkeypatch):
    monkeypatch.setattr(scores, "MOST_SERIES", 2)
    with pytest.raises(ValueError, match=r"long\.parquet has 3 series, too many .* --tasks"):
        scores.held_out_tasks(recipe())


def test_summary():
    found = scores.summary({"a": 0.1, "b": 0.4}, {"a": 0.2, "b": 0.2})
    assert found == {"wql": pytest.approx(0.25), "wql_relative": pytest.approx(math.sqrt(0.5 * 2))}
    assert scores.summary({"a": 0.1}, {"a": 0.0}) == {"wql": 0.1}
    assert scores.summary({}, {}) == {}


def test_the_baseline_is_seasonal_naive(recipe):
    (naive,) = scores.score_baseline(scores.held_out_tasks(recipe())[1:]).values()
    label = np.arange(54, 60) % 5 + 1
    assert naive == pytest.approx(np.abs(label - (53 % 5 + 1)).sum() / label.sum())  # no frequency, so season 1


def test_scores_are_kept_as_long_as_tasks_and_data_are_the_same(recipe, tmp_path, monkeypatch):
    asked = []

    def stand_in(folder: Path, device: str) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(forecaster=SeasonalNaive())

    monkeypatch.setattr(scores, "from_pretrained", stand_in)
    tasks = scores.held_out_tasks(recipe())
    first = scores.score_run(tmp_path, tasks, "cpu")
    assert scores.score_run(tmp_path, tasks, "cpu") == first == scores.score_baseline(tasks)
    assert len(asked) == 1
    assert list(scores.score_run(tmp_path, tasks[:1], "cpu")) == ["long"]
    pq.write_table(pa.table({"target": [list(range(1, 50))]}), tmp_path / "long.parquet")
    assert scores.score_run(tmp_path, tasks[:1], "cpu") != first
    assert len(asked) == 3
