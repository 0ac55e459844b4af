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
from foreloom.report.tables import to_markdown, to_rich

if TYPE_CHECKING:
    from rich.console import Console

MAX_OVERVIEW = 6
"""Tasks in the picture that shows the median window of each."""


def publish(
    rows: Sequence[Mapping[str, Any]],
    examples: Mapping[str, Sequence[ForecastExample]],
    csv_path: Path,
    console: Console,
    *,
    title: str,
    notes: Sequence[str] = (),
) -> None:
    """Write `rows` to `csv_path` and the table as Markdown beside it, draw the examples of each task, print the table.

    A task's best, median and worst window share a picture; another shows the median window of each task. `notes` are
    sentences that stand below the table.
    """
    write_rows(rows, csv_path)
    middling = []
    for task, windows in examples.items():
        panels = {example.kind: panel_of(task, example) for example in windows}
        if panels:
            middling.append(panels["median"])
            file_name = re.sub(r"[^\w.-]+", "-", f"{csv_path.stem}-{task}.svg")
            save_figure(forecast_figure(list(panels.values()), num_columns=1), csv_path.with_name(file_name))
    if middling:
        save_figure(forecast_figure(middling[:MAX_OVERVIEW]), csv_path.with_suffix(".svg"))
    table = table_of(rows)
    write_text(csv_path.with_suffix(".md"), to_markdown(table) + "".join(f"\n{note}\n" for note in notes))
    console.print(to_rich(table, title=title))
    for note in notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    console.print(
        f"wrote {csv_path}; the table as Markdown and forecast pictures are beside it", highlight=False, soft_wrap=True
    )


def default_csv(model: str | Path, data: str | Path) -> Path:
    """evaluation/<data>.csv in the run folder where `model` is one, else <data>-scores.csv here."""
    stem = Path(data).stem
    is_run = (Path(model) / "metrics.jsonl").is_file()
    return Path(model) / "evaluation" / f"{stem}.csv" if is_run else Path(f"{stem}-scores.csv")


def model_name(model: str | Path) -> str:
    """What a model is called in tables: the run or model folder's name, or the hub id."""
    path = Path(model)
    return path.resolve().name if path.exists() else str(model)


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
