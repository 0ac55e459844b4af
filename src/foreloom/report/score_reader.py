"""Score files read back: what `foreloom evaluate` wrote, by model and task."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom.evaluation.metrics import METRICS

ModelScores = dict[str, dict[str, float]]
"""Of one model: task -> metric -> score."""


@dataclass(frozen=True)
class ScoreFile:
    """One CSV of scores."""

    path: Path
    metrics: tuple[str, ...]
    """The metrics it has columns for, all of them better when lower."""
    models: dict[str, ModelScores]


def read_scores(path: str | Path) -> ScoreFile:
    """Read a CSV of `foreloom evaluate`.

    Raises ValueError, with the line, for a file of another kind, a score that is no number, and a model and task that
    are there twice.
    """
    path = Path(path)
    hint = "Give a CSV that `foreloom evaluate` wrote."
    models: dict[str, ModelScores] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            metrics = tuple(name for name in columns if name in METRICS)
            if not {"model", "task"} <= set(columns) or not metrics:
                raise ValueError(f"{path}: not a table of scores, which has columns model, task, WQL, MASE ... {hint}")
            for row in reader:
                line = f"{path}:{reader.line_num}"
                tasks = models.setdefault(row["model"], {})
                if row["task"] in tasks:
                    raise ValueError(
                        f"{line}: task {row['task']!r} of model {row['model']!r} is there twice; keep one."
                    )
                tasks[row["task"]] = {metric: _number(row[metric], metric, line) for metric in metrics}
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{path}: not a CSV file. {hint}") from None
    if not models:
        raise ValueError(f"{path}: the table has no rows. {hint}")
    return ScoreFile(path, metrics, models)


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
        differing = model != shared and any(holding[0].models[model] != other.models[model] for other in holding[1:])
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


def _is_close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b)) or (a != a and b != b)


def _number(text: str | None, metric: str, line: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        raise ValueError(f"{line}: {metric} is {text!r}, a number is wanted.") from None


def task_scores(models: Mapping[str, ModelScores], metric: str) -> dict[str, dict[str, float]]:
    """model -> task -> score of one metric."""
    return {
        model: {task: scores[metric] for task, scores in tasks.items() if metric in scores}
        for model, tasks in models.items()
    }
