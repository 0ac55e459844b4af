"""`foreloom evaluate --tasks`: models beside Seasonal Naive on the same tasks, as a table, a CSV and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foreloom.report.score_files import default_csv, fallback_sentences, publish

if TYPE_CHECKING:
    from foreloom.evaluation.result import EvaluationResult
    from foreloom.evaluation.tasks import EvaluationTask


def evaluate_and_tabulate(
    models: Sequence[str | Path],
    tasks: str | Path,
    *,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> Path:
    """Score `models` (see `report.contestants`) and Seasonal Naive on the tasks of a YAML file, see `score_tasks`.

    `out` is the CSV (default: evaluation/<tasks>.csv in the run folder where one model is given and is one, else
    <tasks>-scores.csv here). Raises ValueError, listing all that is wrong with the tasks, before anything is computed.
    """
    from foreloom.evaluation.tasks import read_tasks

    task_list = read_tasks(tasks, data_root)
    csv_path = Path(out) if out else default_csv(models, Path(tasks).stem)
    score_tasks(models, task_list, csv_path, title=Path(tasks).name, batch_size=batch_size, device=device)
    return csv_path


def score_tasks(
    models: Sequence[str | Path],
    tasks: Sequence[EvaluationTask],
    csv_path: Path,
    *,
    title: str,
    metrics: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Score `models` and Seasonal Naive on `tasks`; print the table, write CSV, Markdown and pictures of forecasts.

    What lies beside the CSV: `report.score_files.publish`; `metrics` are the columns of the table. Collective under
    torchrun: the ranks share the windows, rank 0 prints and writes.
    """
    from foreloom.evaluation.benchmark import evaluate
    from foreloom.report.contestants import contestants
    from foreloom.report.sharing import shared_by_ranks
    from foreloom.report.tables import BASELINE

    with shared_by_ranks() as sharing:
        forecasters = contestants(models, device)
        results: dict[str, EvaluationResult] = {}
        for label, forecaster in forecasters.items():
            with sharing.progress(label) as progress:
                results[label] = evaluate(
                    forecaster,
                    tasks,
                    batch_size=batch_size or 256,
                    rank=sharing.rank,
                    world_size=sharing.world_size,
                    reduce=sharing.reduce,
                    progress=progress,
                )
        rows = [row for label, result in results.items() for row in result.rows(label)]
        drawn = [label for label in forecasters if label != BASELINE] or [BASELINE]
        examples = {label: {task.name: task.examples for task in results[label].tasks} for label in drawn}
        told = [*notes, *(sentence for label, result in results.items() for sentence in _fallbacks(label, result))]
        any_model = next(iter(results.values()))  # what the data lack does not depend on the model
        told += [*_without_labels(any_model), *_short_pasts(any_model)]
        heading = f"{', '.join(drawn)} on {title}"
        sharing.on_rank_zero(
            lambda: publish(rows, examples, csv_path, sharing.console, title=heading, metrics=metrics, notes=told)
        )


def _without_labels(result: EvaluationResult) -> list[str]:
    """A note on tasks whose labels are all missing, which would otherwise only stand empty in the table."""
    empty = [task.name for task in result.tasks if math.isnan(task.scores.get("MAE", 0.0))]
    return [f"nothing to score, every label is missing: {', '.join(empty)}."] if empty else []


def _short_pasts(result: EvaluationResult) -> list[str]:
    """A note where the stated season is longer than what lies before a window; none where it never is."""
    listed = ", ".join(f"{task.num_short_pasts:,} on {task.name}" for task in result.tasks if task.num_short_pasts)
    return [f"windows whose past is not longer than their task's season_length: {listed}."] if listed else []


def _fallbacks(label: str, result: EvaluationResult) -> list[str]:
    return fallback_sentences(label, {task.name: task.num_fallbacks for task in result.tasks})
