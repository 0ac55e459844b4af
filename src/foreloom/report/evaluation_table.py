"""An evaluation as a score table: a row a task and model, beside the baseline, with averages and geometric means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foreloom.evaluation.skill import BASELINE, geometric_mean
from foreloom.report.tables import Cell, Column, ScoreTable

METRICS = ("WQL", "MASE")
SLIDING_METRICS = ("MSE", "MAE")
COVERAGES = {f"coverage_{percent}": f"Coverage {percent}" for percent in (50, 80, 90)}
"""Of tables, where the rows have them: of a calibrated forecast 0.5, 0.8 and 0.9."""


def score_table(rows: Iterable[Mapping[str, Any]], *, metrics: Sequence[str] = METRICS) -> ScoreTable:
    """Lay out evaluation rows, each a mapping with `task`, `model` and scores by metric name (lower is better).

    Every metric fills a column, and where the baseline is among the models two more: its score, and the model's
    relative to it; coverages are relative to nothing. Averages and geometric means leave out tasks without a finite
    score, and the row below them says how many tasks each is over. A single model goes unnamed.
    Raises ValueError for a row without task or model, and for a task scored twice by one model.
    """
    scores = _by_model_and_task(rows)
    base = scores.get(BASELINE, {})
    models = {model: tasks for model, tasks in scores.items() if model != BASELINE} or scores
    is_relative = bool(base) and BASELINE not in models

    labels = [Column("Task", "text")]
    if len(models) > 1:
        labels.append(Column("Model", "text"))
    columns: list[Column] = []
    for metric in metrics:
        columns.append(Column(COVERAGES.get(metric, metric), "score", metric))
        if is_relative and metric not in COVERAGES:
            columns.append(Column(f"{metric} {BASELINE}", "baseline", metric))
            columns.append(Column(f"{metric} relative", "relative", metric))

    body: list[list[Cell]] = []
    summary: list[list[Cell]] = []
    for model, tasks in models.items():
        cells = [[_cell(column, own, base.get(task, {})) for column in columns] for task, own in tasks.items()]
        averages: list[Cell] = []
        geometric_means: list[Cell] = []
        counts: list[Cell] = []
        for column, values in zip(columns, zip(*cells, strict=True), strict=True):
            averages.append(None if column.kind == "relative" else mean(values))
            geometric_means.append(relative_mean(values) if column.kind == "relative" else None)
            counts.append(_num_numbers(values))
        body += [[*[task, model][: len(labels)], *row] for task, row in zip(tasks, cells, strict=True)]
        summary.append([*["Average", model][: len(labels)], *averages])
        if is_relative:
            summary.append([*["Geometric mean", model][: len(labels)], *geometric_means])
        if any(len(tasks) > 1 for tasks in models.values()):
            summary.append([*["Tasks", model][: len(labels)], *counts])
    return ScoreTable([*labels, *columns], body, summary)


def _by_model_and_task(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for number, row in enumerate(rows, start=1):
        task, model = row.get("task"), row.get("model")
        if not task or not model:
            raise ValueError(f"evaluation row {number}: `task` and `model` must be given, found {dict(row)}")
        tasks = scores.setdefault(str(model), {})
        if str(task) in tasks:
            raise ValueError(f"evaluation row {number}: task {task!r} of model {model!r} is there twice; keep one")
        tasks[str(task)] = {key: value for key, value in row.items() if isinstance(value, (int, float))}
    return scores


def _cell(column: Column, own: Mapping[str, float], base: Mapping[str, float]) -> float | None:
    value, reference = finite(own.get(column.metric)), finite(base.get(column.metric))
    match column.kind:
        case "score":
            return value
        case "baseline":
            return reference
        case _:
            return value / reference if value is not None and reference else None


def finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def mean(values: Iterable[Cell]) -> float | None:
    numbers = [value for value in values if isinstance(value, float)]
    return sum(numbers) / len(numbers) if numbers else None


def _num_numbers(values: Iterable[Cell]) -> int:
    return sum(isinstance(value, float) for value in values)


def relative_mean(values: Iterable[Cell]) -> float | None:
    return finite(geometric_mean([value for value in values if isinstance(value, float)]))


def table_of(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str] | None = None) -> ScoreTable:
    """The layout that belongs to the rows of an evaluation: those of sliding windows state their context.

    `metrics` are the columns of other rows (default: WQL and MASE), and then come the coverages that they have.
    """
    rows = list(rows)
    if any("context" in row for row in rows):
        return sliding_table(rows)
    covered = [name for name in COVERAGES if any(name in row for row in rows)]
    return score_table(rows, metrics=[*(metrics or METRICS), *covered])


def sliding_table(rows: Iterable[Mapping[str, Any]]) -> ScoreTable:
    """Rows of `evaluation.sliding`, task by task; what could not be scored is a row that says so.

    Relative scores are divided by Seasonal Naive's. Where several tasks were scored, a summary: the average of each
    score, the geometric mean of each relative score, and the number of tasks each is over.
    """
    columns = [
        Column("Task", "text"),
        Column("Model", "text"),
        Column("Context", "count"),
        Column("Windows", "count"),
        *(Column(metric, "score", metric) for metric in SLIDING_METRICS),
        *(Column(f"{metric} relative", "relative", metric) for metric in SLIDING_METRICS),
    ]
    by_task: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_task.setdefault(row["task"], {})[row["model"]] = row
    body: list[list[Cell]] = []
    scores_of: dict[str, list[list[float | None]]] = {}
    for task, models in by_task.items():
        if not any(row["num_windows"] for row in models.values()):
            body.append([task, "not scored", *[None] * (len(columns) - 2)])
            continue
        for model, row in models.items():
            scores = [finite(row[metric]) for metric in SLIDING_METRICS]
            base = [None if model == BASELINE else finite(models[BASELINE][metric]) for metric in SLIDING_METRICS]
            scores += [_ratio(score, reference) for score, reference in zip(scores, base, strict=True)]
            body.append([task, model, int(row["context"]), int(row["num_windows"]), *scores])
            scores_of.setdefault(model, []).append(scores)

    summary: list[list[Cell]] = []
    for model, scored in scores_of.items():
        by_column = list(zip(columns[4:], zip(*scored, strict=True), strict=True))
        means = [relative_mean(values) if one.kind == "relative" else mean(values) for one, values in by_column]
        if len(scored) > 1:
            summary.append(["Mean", model, None, None, *means])
            summary.append(["Tasks", model, None, None, *(_num_numbers(values) or None for _, values in by_column)])
    return ScoreTable(columns, body, summary)


def _ratio(score: float | None, reference: float | None) -> float | None:
    return score / reference if score is not None and reference else None
