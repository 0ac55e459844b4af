"""What `foreloom evaluate` leaves: the scores as CSV, as Markdown and on the console, forecasts as pictures."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreloom.evaluation.result import ForecastExample
from foreloom.files import whole_or_absent, write_text
from foreloom.report.figures import ForecastPanel, forecast_figure
from foreloom.report.sliding_table import table_of
from foreloom.report.style import save_figure
from foreloom.report.tables import print_whole

if TYPE_CHECKING:
    from rich.console import Console

MAX_OVERVIEW = 6
"""Tasks in the picture that shows the median window of each."""


def publish(
    rows: Sequence[Mapping[str, Any]],
    examples: Mapping[str, Mapping[str, Sequence[ForecastExample]]],
    csv_path: Path,
    console: Console,
    *,
    title: str,
    metrics: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write `rows` to `csv_path` and the table as Markdown beside it, draw the examples of each task, print the table.

    `examples` holds them by model and task. A task's best, median and worst window share a picture a model; another
    shows the median window of each task. `metrics` are the columns of the table (default: WQL and MASE, or MSE and MAE
    of sliding windows), `notes` sentences that stand below it.
    """
    write_rows(rows, csv_path)
    _draw(examples, csv_path)
    table = table_of(rows, metrics)
    write_text(csv_path.with_suffix(".md"), table.to_markdown() + "".join(f"\n{note}\n" for note in notes))
    print_whole(console, table.to_rich(), title)
    for note in notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    console.print(
        f"wrote {csv_path}; the table as Markdown and forecast pictures are beside it", highlight=False, soft_wrap=True
    )


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


def fallback_sentences(model: str, num_of_task: Mapping[str, int]) -> list[str]:
    """A note where a model failed on windows and Seasonal Naive answered in its place; none where it never did."""
    failed = {task: num for task, num in num_of_task.items() if num}
    if not failed:
        return []
    listed = ", ".join(f"{num:,} on {task}" for task, num in failed.items())
    return [f"{model} failed on {sum(failed.values()):,} forecasts, which Seasonal Naive made instead: {listed}."]


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
