"""Score tables: rows of an evaluation beside a baseline, as a console table, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from foreloom.evaluation.baselines import BASELINE
from foreloom.evaluation.skill import geometric_mean

if TYPE_CHECKING:
    import rich.console
    import rich.table

METRICS = ("WQL", "MASE")

Cell = str | float | None
"""A text, a number, or nothing to say."""


@dataclass(frozen=True)
class Column:
    """What a column holds: a text, a count, the scores of a metric, the baseline's, or the first over the second."""

    name: str
    kind: Literal["text", "count", "score", "baseline", "relative"]
    metric: str = ""


@dataclass(frozen=True)
class ScoreTable:
    """Scores a task and their summary. Numbers are raw; the writers below round them."""

    columns: list[Column]
    rows: list[list[Cell]]
    """A task and model each."""
    summary: list[list[Cell]]
    """Per model: the average of each score, and the geometric mean of each relative score."""

    @property
    def is_relative(self) -> bool:
        """Is there a baseline to compare with?"""
        return any(column.kind == "relative" for column in self.columns)


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
    is_relative = bool(base) and baseline not in models

    labels = [Column("Task", "text")]
    if len(models) > 1:
        labels.append(Column("Model", "text"))
    columns: list[Column] = []
    for metric in metrics:
        columns.append(Column(metric, "score", metric))
        if is_relative:
            columns.append(Column(f"{metric} {baseline}", "baseline", metric))
            columns.append(Column(f"{metric} relative", "relative", metric))

    body: list[list[Cell]] = []
    summary: list[list[Cell]] = []
    for model, tasks in models.items():
        cells = [[_cell(column, own, base.get(task, {})) for column in columns] for task, own in tasks.items()]
        averages: list[Cell] = []
        geometric_means: list[Cell] = []
        for column, values in zip(columns, zip(*cells, strict=True), strict=True):
            averages.append(None if column.kind == "relative" else mean(values))
            geometric_means.append(relative_mean(values) if column.kind == "relative" else None)
        body += [[*[task, model][: len(labels)], *row] for task, row in zip(tasks, cells, strict=True)]
        summary.append([*["Average", model][: len(labels)], *averages])
        if is_relative:
            summary.append([*["Geometric mean", model][: len(labels)], *geometric_means])
    return ScoreTable([*labels, *columns], body, summary)


def to_rich(table: ScoreTable) -> rich.table.Table:
    """For the console: relative scores green below 1 and red from 1 on."""
    import rich.box
    import rich.table
    from rich.text import Text

    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in table.columns:
        # Long names break, so that the columns of numbers stay narrow and 80 characters hold the table.
        is_text = column.kind == "text"
        name = column.name.replace(" ", "\n").replace("-", "-\n")
        grid.add_column(name, justify="left" if is_text else "right", no_wrap=is_text)
    colours = {True: "green", False: "red", None: ""}
    for group in (table.rows, table.summary):
        for row in group:
            texts = [
                Text(cell_text(cell), style=colours[is_better(column, cell)])
                for column, cell in zip(table.columns, row, strict=True)
            ]
            grid.add_row(*texts, style="bold" if group is table.summary else None)
        grid.add_section()
    return grid


def print_whole(console: rich.console.Console, grid: rich.table.Table, title: str) -> None:
    """Print every figure in full: where the console is too narrow, lines run over its edge and no digit is cut off.

    The title stands above and not in the grid, where rich would break it at the width of a narrow table.
    """
    console.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
    unbounded = console.options.update(max_width=10_000)
    console.width = max(console.width, console.measure(grid, options=unbounded).maximum)
    console.print(grid)


def to_markdown(table: ScoreTable) -> str:
    """A GitHub table; relative scores below 1 and the summary are bold."""
    lines = [
        "| " + " | ".join(column.name for column in table.columns) + " |",
        "|" + "|".join(":---" if column.kind == "text" else "---:" for column in table.columns) + "|",
    ]
    for group in (table.rows, table.summary):
        for row in group:
            texts = []
            for column, cell in zip(table.columns, row, strict=True):
                text = cell_text(cell).replace("|", "\\|")
                is_bold = group is table.summary or is_better(column, cell)
                texts.append(f"**{text}**" if is_bold and text else text)
            lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def to_csv(table: ScoreTable) -> str:
    """The rows without their summary, numbers in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows([["" if cell is None else cell for cell in row] for row in table.rows])
    return text.getvalue()


def is_better(column: Column, cell: Cell) -> bool | None:
    """Does a relative score beat the baseline? None for every other cell."""
    return cell < 1 if column.kind == "relative" and isinstance(cell, float) else None


def cell_text(cell: Cell) -> str:
    """A cell for people: a whole number as it is, others with four significant digits up to 1000, nothing for None."""
    match cell:
        case None:
            return ""
        case str():
            return cell
        case int():
            return f"{cell:,}"
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


def relative_mean(values: Iterable[Cell]) -> float | None:
    return finite(geometric_mean([value for value in values if isinstance(value, float)]))
