"""Results: rows with stable columns."""

import numpy as np

from foreloom.evaluation.metrics import METRICS, metric_sums
from foreloom.evaluation.result import EvaluationResult, TaskResult

FIXED = ["model", "task", *METRICS]
FIXED += ["prediction_length", "num_series", "num_windows", "num_skipped", "num_points", "seconds"]


def result(**error_by_task):
    """Tasks whose every forecast is off by so much; labels are 2, the scale 1."""
    tasks = []
    for i, (name, error) in enumerate(error_by_task.items()):
        levels = (0.1, 0.5, 0.9) if i else (0.25, 0.5, 0.75)
        forecast = np.full((1, 2, 3), 2.0 + error)
        sums = metric_sums(forecast, np.full((1, 2), 2.0), [1.0], levels, ["a"])
        tasks.append(TaskResult(name, 2, sums, num_series=1, num_skipped=0, seconds=0.1234))
    return EvaluationResult(tuple(tasks))


def test_columns_stay_where_they_are():
    rows = result(one=1.0, two=2.0).rows("mine")
    assert [list(row) for row in rows] == [[*FIXED, "coverage_50", "coverage_80"]] * 2
    assert [(r["model"], r["task"], r["MASE"], r["num_points"]) for r in rows] == [
        ("mine", "one", 1.0, 2),
        ("mine", "two", 2.0, 2),
    ]
    assert np.isnan(rows[0]["coverage_80"])
    assert list(result(one=1.0).rows("m")[0])[: len(FIXED)] == FIXED
