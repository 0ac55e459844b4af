"""What `foreloom evaluate` leaves: the scores as CSV and as Markdown, forecasts as pictures."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreloom.evaluation.evaluate import Evaluation, ForecastExample
from foreloom.files import whole_or_absent, write_text
from foreloom.report.figures import ForecastPanel, forecast_figure
from foreloom.report.sliding_table import table_of
from foreloom.report.style import save_figure
from foreloom.report.tables import ScoreTable

MAX_OVERVIEW = 6
"""Tasks in the picture that shows the median window of each."""


def write_scores(
    evaluation: Evaluation, csv_path: Path, *, metrics: Sequence[str] | None = None, notes: Sequence[str] = ()
) -> ScoreTable:
    """Write the rows to `csv_path`, the table as Markdown beside it, and draw the examples of each task; the table.

    A task's best, median and worst window share a picture a model; another shows the median window of each task.
    `metrics` are the columns of the table (default: WQL and MASE, or MSE and MAE of sliding windows), `notes` sentences
    that stand below it.
    """
    write_rows(evaluation.rows, csv_path)
    _draw(evaluation.examples, csv_path)
    table = table_of(evaluation.rows, metrics)
    write_text(csv_path.with_suffix(".md"), table.to_markdown() + "".join(f"\n{note}\n" for note in notes))
    return table


def _draw(examples: Mapping[str, Mapping[str, Sequence[ForecastExample]]], csv_path: Path) -> None:
    several = len(examples) > 1
    middling = []
    for model, tasks in examples.items():
        for task, windows in tasks.items():
            name = f"{model} · {task}" if several else task
            panels = {example.kind: panel_of(name, example) for example in windows}
            if panels:
                middling.append(panels["median"])
                stem = f"{csv_path.stem}-{model}-{task}" if several else f"{csv_path.stem}-{task}"
                file_name = re.sub(r"[^\w.-]+", "-", f"{stem}.svg")
                save_figure(forecast_figure(list(panels.values()), num_columns=1), csv_path.with_name(file_name))
    if middling:
        save_figure(forecast_figure(_spread(middling, MAX_OVERVIEW)), csv_path.with_suffix(".svg"))


def _spread(panels: Sequence[ForecastPanel], most: int) -> list[ForecastPanel]:
    """At most so many, evenly from first to last."""
    num = min(len(panels), most)
    return [panels[i * (len(panels) - 1) // max(num - 1, 1)] for i in range(num)]


def default_csv(models: Sequence[str | Path], data: str) -> Path:
    """evaluation/<data>.csv in the run folder where one model is given and is one, else <data>-scores.csv here."""
    is_run = len(models) == 1 and (Path(models[0]) / "metrics.jsonl").is_file()
    return Path(models[0]) / "evaluation" / f"{data}.csv" if is_run else Path(f"{data}-scores.csv")


def panel_of(task: str, example: ForecastExample) -> ForecastPanel:
    """The first variate of an example window, ready to draw."""
    return ForecastPanel(
        title=f"{task} · {example.name} ({example.kind})",
        history=example.context_VL[0],
        actual=example.label_VH[0],
        levels=example.quantile_levels,
        quantiles=example.forecast_VHQ[0],
    )


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Rows of one or several models as one CSV, whole or not at all; columns in the order they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with whole_or_absent(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval=math.nan, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
