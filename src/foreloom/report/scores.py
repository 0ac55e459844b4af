"""Score files of `foreloom evaluate`: written with their table and pictures, and read back by model and task."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreloom.evaluation.metrics import METRICS
from foreloom.evaluation.published import TRAINED_ON
from foreloom.evaluation.result import Evaluation, ForecastExample
from foreloom.evaluation.skill import BASELINE
from foreloom.files import whole_or_absent, write_text
from foreloom.report.figures import ForecastPanel, forecast_figure
from foreloom.report.style import save_figure
from foreloom.report.tables import ScoreTable

MAX_OVERVIEW = 6
"""Tasks in the picture that shows the median window of each."""


def write_scores(evaluation: Evaluation, table: ScoreTable, csv_path: Path, *, notes: Sequence[str] = ()) -> None:
    """Write the rows to `csv_path`, their table as Markdown beside it, and draw the examples of each task.

    A task's best, median and worst window share a picture a model; another shows the median window of each task.
    `notes` are sentences that stand below the table.
    """
    write_rows(evaluation.rows, csv_path)
    write_text(csv_path.with_suffix(".md"), table.to_markdown() + "".join(f"\n{note}\n" for note in notes))
    _draw(evaluation.examples, csv_path)


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


ModelScores = dict[str, dict[str, float]]
"""Of one model: task -> metric -> score; and `TRAINED_ON`, 1 where the model has seen the task's data in training."""

_MODEL, _TASK = ("model", "model_name"), ("task", "task_name", "dataset")
"""What score files call these columns: ours, fev's, and those of Chronos and GIFT-Eval."""
_SEEN = (TRAINED_ON, "trained_on_this_dataset")
_OF_GIFT_EVAL = {
    "MASE": "eval_metrics/MASE[0.5]",
    "WQL": "eval_metrics/mean_weighted_sum_quantile_loss",
    "WAPE": "eval_metrics/ND[0.5]",
    "MAE": "eval_metrics/MAE[0.5]",
    "MSE": "eval_metrics/MSE[0.5]",
    "sMAPE": "eval_metrics/sMAPE[0.5]",
}
_TRUTHS = {"": 0.0, "0": 0.0, "false": 0.0, "0.0": 0.0, "1": 1.0, "true": 1.0, "1.0": 1.0}


@dataclass(frozen=True)
class ScoreFile:
    """One CSV of scores."""

    path: Path
    metrics: tuple[str, ...]
    """The metrics it has columns for, all of them better when lower."""
    models: dict[str, ModelScores]


def read_scores(path: str | Path) -> ScoreFile:
    """Read a CSV of `foreloom evaluate`, or one that fev, GIFT-Eval or Chronos publish their results in.

    Raises ValueError, with the line, for a file of another kind, a score that is no number, and a model and task that
    are there twice.
    """
    path = Path(path)
    hint = "Give a CSV that `foreloom evaluate`, fev or GIFT-Eval wrote."
    models: dict[str, ModelScores] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            model, task, seen = (next((one for one in names if one in columns), "") for names in (_MODEL, _TASK, _SEEN))
            metrics = {name: name for name in columns if name in METRICS}
            metrics |= {name: theirs for name, theirs in _OF_GIFT_EVAL.items() if theirs in columns}
            if not model or not task or not metrics:
                raise ValueError(f"{path}: not a table of scores, which has columns model, task, WQL, MASE ... {hint}")
            for row in reader:
                line = f"{path}:{reader.line_num}"
                if None in row.values():
                    raise ValueError(f"{line}: the row ends early, it has fewer cells than the header. Write it again.")
                name = BASELINE if re.sub(r"[\W_]+", "-", row[model]).casefold() == BASELINE else row[model]
                tasks = models.setdefault(name, {})
                if row[task] in tasks:
                    raise ValueError(f"{line}: task {row[task]!r} of model {name!r} is there twice; keep one.")
                tasks[row[task]] = {metric: _number(row[column], metric, line) for metric, column in metrics.items()}
                if seen:
                    tasks[row[task]][TRAINED_ON] = _truth(row[seen], seen, line)
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{path}: not a CSV file. {hint}") from None
    if not models:
        raise ValueError(f"{path}: the table has no rows. {hint}")
    return ScoreFile(path, tuple(metrics), models)


def trained_on(scores: ModelScores) -> list[str]:
    """The tasks whose data a model has seen in training, as far as its file says so."""
    return [task for task, of_task in scores.items() if of_task.get(TRAINED_ON)]


def find_metric(name: str, files: Sequence[ScoreFile]) -> str:
    """A metric as typed (`wql`) by its name in the files; ValueError, with the nearest, where a file lacks it."""
    for file in files:
        if name.casefold() not in (metric.casefold() for metric in file.metrics):
            hint = nearest(name, file.metrics)
            raise ValueError(f"{file.path}: no metric {name!r}.{hint} It has {', '.join(file.metrics)}.")
    return next(metric for metric in files[0].metrics if metric.casefold() == name.casefold())


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the known name most like `name`, whatever its case; empty where none is like it."""
    by_folded = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return f" Did you mean {by_folded[close[0]]}?" if close else ""


def by_model(files: Sequence[ScoreFile], shared: str) -> dict[str, ModelScores]:
    """The models of several files, in their order; a name that two files use for different scores gets the file's name.

    `shared` is the baseline, which every file may hold. Raises ValueError where two files disagree on its scores: then
    their tasks are not the same.
    """
    owners: dict[str, list[ScoreFile]] = {}
    for file in files:
        for model in file.models:
            owners.setdefault(model, []).append(file)
    models: dict[str, ModelScores] = {}
    for model, holding in owners.items():
        if model == shared:
            _check_agree(shared, holding)
        differing = model != shared and any(
            not _are_same(holding[0].models[model], other.models[model]) for other in holding[1:]
        )
        for file in holding:
            label = f"{model} ({file.path.stem})" if differing else model
            label = f"{model} ({file.path})" if differing and label in models else label
            models.setdefault(label, {}).update(file.models[model])
    return models


def _check_agree(model: str, files: Sequence[ScoreFile]) -> None:
    seen: dict[tuple[str, str], tuple[float, ScoreFile]] = {}
    for file in files:
        for task, scores in file.models[model].items():
            for metric, value in scores.items():
                other, where = seen.setdefault((task, metric), (value, file))
                if not _is_close(value, other):
                    raise ValueError(
                        f"{file.path}: {model} has {metric} {value:.6g} on {task!r}, but {other:.6g} in {where.path}. "
                        "The tasks differ in their data or windows, so the files cannot be compared."
                    )


def _are_same(scores: ModelScores, others: ModelScores) -> bool:
    """Every score of every task, those that are NaN too."""
    if scores.keys() != others.keys():
        return False
    return all(
        own.keys() == others[task].keys()
        and all(
            value == others[task][name] or (math.isnan(value) and math.isnan(others[task][name]))
            for name, value in own.items()
        )
        for task, own in scores.items()
    )


def _is_close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b)) or (a != a and b != b)


def _number(text: str | None, metric: str, line: str) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        raise ValueError(f"{line}: {metric} is {text!r}, a number is wanted.") from None
    if value < 0:
        raise ValueError(f"{line}: {metric} is {text}, and no error is below 0. Correct it, or leave it empty.")
    return value


def _truth(text: str | None, column: str, line: str) -> float:
    known = _TRUTHS.get((text or "").strip().casefold())
    if known is None:
        raise ValueError(f"{line}: {column} is {text!r}; write 1 where the model has seen the task's data, else 0.")
    return known


def task_scores(models: Mapping[str, ModelScores], metric: str) -> dict[str, dict[str, float]]:
    """model -> task -> score of one metric."""
    return {
        model: {task: scores[metric] for task, scores in tasks.items() if metric in scores}
        for model, tasks in models.items()
    }
