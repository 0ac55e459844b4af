"""The table of an evaluation on sliding windows: a row a task and model, every model beside the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foreloom.report.tables import BASELINE, METRICS, Cell, Column, ScoreTable, finite, mean, relative_mean, score_table

SLIDING_METRICS = ("MSE", "MAE")


def table_of(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str] | None = None) -> ScoreTable:
    """The layout that belongs to the rows of an evaluation: those of sliding windows state their context.

    `metrics` are the columns of other rows (default: WQL and MASE).
    """
    rows = list(rows)
    if any("context" in row for row in rows):
        return sliding_table(rows)
    return score_table(rows, metrics=metrics or METRICS)


def sliding_table(rows: Iterable[Mapping[str, Any]]) -> ScoreTable:
    """Rows as `report.sliding` writes them, task by task; what could not be scored is a row that says so.

    Relative scores are divided by Seasonal Naive's. Where several tasks were scored, a summary: the average of each
    score, and the geometric mean of each relative score.
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
            body.append([task, model, f"{row['context']:,.0f}", f"{row['num_windows']:,.0f}", *scores])
            scores_of.setdefault(model, []).append(scores)

    summary: list[list[Cell]] = []
    for model, scored in scores_of.items():
        means = [
            relative_mean(values) if column.kind == "relative" else mean(values)
            for column, values in zip(columns[4:], zip(*scored, strict=True), strict=True)
        ]
        if len(scored) > 1:
            summary.append(["Mean", model, None, None, *means])
    return ScoreTable(columns, body, summary)


def _ratio(score: float | None, reference: float | None) -> float | None:
    return score / reference if score is not None and reference else None
