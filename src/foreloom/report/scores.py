"""`foreloom evaluate`: a model beside Seasonal Naive on the same tasks, as a table, a CSV and pictures."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreloom.evaluation.result import EvaluationResult, ForecastExample
from foreloom.files import whole_or_absent, write_text
from foreloom.report.figures import ForecastPanel
from foreloom.report.tables import BASELINE

MAX_OVERVIEW = 6
"""Tasks in the picture that shows the median window of each."""

if TYPE_CHECKING:
    from rich.console import Console

    from foreloom.evaluation.benchmark import Progress


def evaluate_and_tabulate(
    model: str | Path,
    tasks: str | Path,
    *,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> Path:
    """Score `model` and Seasonal Naive on the tasks of a YAML file; print the table, write CSV, Markdown and pictures.

    `out` is the CSV (default: evaluation/<tasks>.csv in the run folder where `model` is one, else
    <tasks>-scores.csv here). The table as Markdown and the pictures go beside it: the median window of each task, and
    each task's best, median and worst. Returns the CSV's path. Raises ValueError, listing all that is wrong with the
    tasks, before anything is computed.
    """
    from rich.console import Console

    from foreloom.evaluation.baselines import SeasonalNaive
    from foreloom.evaluation.benchmark import evaluate
    from foreloom.evaluation.tasks import read_tasks
    from foreloom.forecast import from_pretrained
    from foreloom.report.figures import forecast_figure
    from foreloom.report.style import save_figure
    from foreloom.report.tables import score_table, to_markdown, to_rich

    console = Console()
    task_list = read_tasks(tasks, data_root)
    forecaster = from_pretrained(model, device=device).forecaster
    name = model_name(model)
    csv_path = Path(out) if out else _default_csv(Path(model), Path(tasks))
    results: dict[str, EvaluationResult] = {}
    for label, one in ((name, forecaster), (BASELINE, SeasonalNaive())):
        with progress_bar(console, label) as progress:
            results[label] = evaluate(one, task_list, batch_size=batch_size, progress=progress)
    rows = [row for label, result in results.items() for row in result.rows(label)]
    write_rows(rows, csv_path)
    middling = []
    for task in results[name].tasks:
        panels = {example.kind: panel_of(task.name, example) for example in task.examples}
        if panels:
            middling.append(panels["median"])
            figure = forecast_figure(list(panels.values()), num_columns=1)
            file_name = re.sub(r"[^\w.-]+", "-", f"{csv_path.stem}-{task.name}.svg")
            save_figure(figure, csv_path.with_name(file_name))
    if middling:
        save_figure(forecast_figure(middling[:MAX_OVERVIEW]), csv_path.with_suffix(".svg"))
    table = score_table(rows)
    write_text(csv_path.with_suffix(".md"), to_markdown(table))
    console.print(to_rich(table, title=f"{name} on {Path(tasks).name}"))
    console.print(
        f"wrote {csv_path}; the table as Markdown and forecast pictures are beside it", highlight=False, soft_wrap=True
    )
    return csv_path


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


@contextmanager
def progress_bar(console: Console, label: str) -> Iterator[Progress]:
    """A bar a task; silent where the console is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        of_task: dict[str, Any] = {}

        def advance(task: str, done: int, total: int) -> None:
            if task not in of_task:
                of_task[task] = bars.add_task(f"{label} on {task}", total=total)
            bars.update(of_task[task], completed=done)

        yield advance


def _default_csv(model: Path, tasks: Path) -> Path:
    is_run = (model / "metrics.jsonl").is_file()
    return model / "evaluation" / f"{tasks.stem}.csv" if is_run else Path(f"{tasks.stem}-scores.csv")
