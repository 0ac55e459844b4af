"""Score tables: rows of an evaluation beside a baseline, as a console table, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.table

BASELINE = "seasonal-naive"
METRICS = ("WQL", "MASE")

Cell = str | float | None
"""A text, a number, or nothing to say."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores a task and their summary. Numbers are raw; the writers below round them."""

    columns: list[str]
    rows: list[list[Cell]]
    """A task and model each."""
    summary: list[list[Cell]]
    """Per model: the average of each score, and the geometric mean of each relative score."""
    relative: list[bool]
    """Which columns are relative to the baseline: below 1 is better than it."""


def score_table(
    rows: Iterable[Mapping[str, Any]], *, metrics: Sequence[str] = METRICS, baseline: str = BASELINE
) -> ScoreTable:
    """Lay out evaluation rows, each a mapping with `task`, `model` and scores by metric name (lower is better).

    Every metric fills a column, and where the baseline is among the models two more: its score, and the model's
    relative to it. Averages and geometric means leave out tasks without a finite score. A single model goes unnamed.
    Raises ValueError for a row without task or model, and for a task scored twice by one model.
    """
    scores = _by_model_and_task(rows)
    base = scores.get(baseline, {})
    models = {model: tasks for model, tasks in scores.items() if model != baseline} or scores
    compared = bool(base) and baseline not in models
    kinds = ["{}", "{} " + baseline, "{} relative"] if compared else ["{}"]
    names = ["Task", *(["Model"] if len(models) > 1 else [])]
    columns = [*names, *(kind.format(metric) for metric in metrics for kind in kinds)]
    relative = [False] * len(names) + [kind.endswith("relative") for _ in metrics for kind in kinds]

    def label(task: str, model: str) -> list[Cell]:
        return [task, model] if len(models) > 1 else [task]

    body: list[list[Cell]] = []
    summary: list[list[Cell]] = []
    for model, tasks in models.items():
        numbers = [
            [cell for metric in metrics for cell in _cells(of_task, base.get(task, {}), metric)[: len(kinds)]]
            for task, of_task in tasks.items()
        ]
        body += [[*label(task, model), *row] for task, row in zip(tasks, numbers, strict=True)]
        pillars = list(zip(relative[len(names) :], zip(*numbers, strict=True), strict=True))
        summary.append(
            [*label("Average", model), *(None if is_ratio else _mean(pillar) for is_ratio, pillar in pillars)]
        )
        if compared:
            means = [geometric_mean(pillar) if is_ratio else None for is_ratio, pillar in pillars]
            summary.append([*label("Geometric mean", model), *means])
    return ScoreTable(columns, body, summary, relative)


def geometric_mean(values: Iterable[Cell]) -> float | None:
    """exp of the mean logarithm of the positive finite values; None where there are none."""
    logs = [math.log(value) for value in values if isinstance(value, (int, float)) and 0 < value < math.inf]
    return math.exp(sum(logs) / len(logs)) if logs else None


def to_rich(table: ScoreTable, title: str | None = None) -> rich.table.Table:
    """For the console: relative scores green below 1 and red above."""
    import rich.box
    import rich.table

    grid = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in table.columns:
        is_text = name in ("Task", "Model")
        grid.add_column(name, justify="left" if is_text else "right", overflow="fold")
    for group in (table.rows, table.summary):
        for row in group:
            texts = []
            for cell, is_ratio in zip(row, table.relative, strict=True):
                style = "" if not is_ratio or not isinstance(cell, float) else "green" if cell < 1 else "red"
                texts.append(rich.table.Text(cell_text(cell), style=style))
            grid.add_row(*texts, style="bold" if group is table.summary else None)
        grid.add_section()
    return grid


def to_markdown(table: ScoreTable) -> str:
    """A GitHub table; relative scores below 1 and the summary are bold."""
    text_columns = [name in ("Task", "Model") for name in table.columns]
    lines = [
        "| " + " | ".join(table.columns) + " |",
        "|" + "|".join(":---" if is_text else "---:" for is_text in text_columns) + "|",
    ]
    for group in (table.rows, table.summary):
        for row in group:
            texts = []
            for cell, is_ratio in zip(row, table.relative, strict=True):
                text = cell_text(cell).replace("|", "\\|")
                is_bold = group is table.summary or (is_ratio and isinstance(cell, float) and cell < 1)
                texts.append(f"**{text}**" if is_bold and text else text)
            lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def to_csv(table: ScoreTable) -> str:
    """The rows without their summary, numbers in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([["" if cell is None else cell for cell in row] for row in table.rows])
    return text.getvalue()


def cell_text(cell: Cell) -> str:
    """A cell for people: four significant digits up to 1000, nothing for None."""
    match cell:
        case None:
            return ""
        case str():
            return cell
        case _ if abs(cell) >= 1000:
            return f"{cell:,.0f}"
        case _:
            return f"{cell:#.4g}" if cell else "0"


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


def _cells(scores: Mapping[str, float], base: Mapping[str, float], metric: str) -> list[Cell]:
    value, reference = _finite(scores.get(metric)), _finite(base.get(metric))
    ratio = value / reference if value is not None and reference else None
    return [value, reference, ratio]


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _mean(values: Iterable[Cell]) -> float | None:
    numbers = [value for value in values if isinstance(value, float)]
    return sum(numbers) / len(numbers) if numbers else None
