"""Models scored on the same tasks, side by side and against a baseline.

Axes: T tasks, M models (the baseline last).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from foreloom.evaluation import skill
from foreloom.evaluation.skill import BASELINE, ErrorTable
from foreloom.report.scores import by_model, find_metric, nearest, read_scores, task_scores, trained_on
from foreloom.report.tables import Cell, Column, ScoreTable


def compare(results: Sequence[str | Path], *, baseline: str = BASELINE, metric: str = "WQL") -> ScoreTable:
    """A row a task with the score of each model, the baseline's, and each model's relative to it.

    Below: averages, geometric means of the relative scores (over tasks where the baseline errs at all), and how often
    each model has the smaller error than the baseline and than each other model (ties half), with the 95 % interval of
    a bootstrap over tasks. Tasks that not all have scored are named in a note and left out. Raises ValueError for files
    that are no scores, a metric or a baseline that they do not hold (with the nearest), and where no task is shared.
    """
    files = [read_scores(path) for path in results]
    metric = find_metric(metric, files)
    names = list(dict.fromkeys(name for file in files for name in file.models))
    if baseline not in names:
        raise ValueError(
            f"baseline {baseline!r} is in none of {', '.join(str(file.path) for file in files)}."
            f"{nearest(baseline, names)} The models are {', '.join(names)}."
        )
    by_name = by_model(files, baseline)
    models = task_scores(by_name, metric)
    if len(models) == 1:
        raise ValueError(f"{files[0].path}: {baseline} stands alone; give scores of a model to compare with it.")
    models = {**{name: own for name, own in models.items() if name != baseline}, baseline: models[baseline]}
    tasks = list(dict.fromkeys(task for own in models.values() for task in own))
    table = ErrorTable.of(models, tasks)
    shared_T = np.all(np.isfinite(table.error_TM), axis=1)
    kept, left_out = table.on(shared_T), table.on(~shared_T)
    if not kept.tasks:
        raise ValueError(f"no task has a {metric} of every model: {_absences(left_out)}.")
    notes = [f"Relative: divided by the {metric} of {baseline}; below 1 is better. Lower scores are better."]
    if left_out.tasks:
        notes.append(f"Left out, as not all have a score: {_absences(left_out)}.")
    exact = [task for task, error in zip(kept.tasks, kept.column(baseline), strict=True) if error == 0]
    if exact:
        num = f"{len(kept.tasks) - len(exact)} of the {_tasks(len(kept.tasks))}"
        notes.append(f"{baseline} errs by 0 on {', '.join(exact)}: geometric means are over {num}.")
    notes += [
        f"{name} has seen the data of {', '.join(seen)} in training."
        for name, scores in by_name.items()
        if (seen := [task for task in trained_on(scores) if task in kept.tasks])
    ]
    wins = "Wins: share of tasks with the smaller error, ties half"
    if len(kept.tasks) >= skill.FEWEST_TASKS:
        notes.append(
            f"{wins}; in parentheses the 95 % interval of {skill.NUM_RESAMPLES:,} bootstrap samples of the tasks."
        )
    elif len(kept.tasks) > 1:
        notes.append(
            f"{wins}. {len(kept.tasks)} tasks tell nothing of others: an interval is given from "
            f"{skill.FEWEST_TASKS} on."
        )
    title = f"{metric} of {', '.join(kept.models[:-1])} beside {baseline} on {_tasks(len(kept.tasks))}"
    return replace(_lay_out(kept, metric), title=title, notes=tuple(notes))


def _lay_out(table: ErrorTable, metric: str) -> ScoreTable:
    *others, baseline = table.models
    columns = [Column("Task", "text"), *(Column(name, "score", metric) for name in others)]
    columns.append(Column(baseline, "baseline", metric))
    columns += [Column(f"{name} relative", "relative", metric) for name in others]
    ratio_TM = skill.relative(table, baseline).error_TM[:, :-1]
    rows: list[list[Cell]] = [
        [task, *_cells(errors), *_cells(ratios)]
        for task, errors, ratios in zip(table.tasks, table.error_TM, ratio_TM, strict=True)
    ]
    comparable_TM = ratio_TM[np.isfinite(ratio_TM).all(axis=1)]
    means = _cells(skill.geometric_means(comparable_TM)) if len(comparable_TM) else [None] * len(others)
    nothing: list[Cell] = [None] * len(table.models)
    summary: list[list[Cell]] = [
        ["Average", *_cells(table.error_TM.mean(axis=0)), *[None] * len(others)],
        ["Geometric mean", *nothing, *means],
    ]
    # One row a rival: the baseline first, then the models among themselves.
    wins = skill.bootstrap(table.error_TM, skill.pairwise_win_rates)
    for rival in (len(others), *range(len(others) if len(others) > 1 else 0)):
        shares: list[Cell] = [None if m == rival else _share(wins, m, rival) for m in range(len(others))]
        summary.append([f"Wins against {table.models[rival]}", *nothing, *shares])
    return ScoreTable(columns, rows, summary)


def _share(wins: skill.Interval, model: int, rival: int) -> str:
    estimate, lower, upper = (100 * ends[model, rival] for ends in (wins.estimate, wins.lower, wins.upper))
    return f"{estimate:.1f} %" + (f" ({lower:.1f} to {upper:.1f})" if np.isfinite(lower) else "")


def _cells(values: np.ndarray) -> list[Cell]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _absences(table: ErrorTable) -> str:
    """Task by task, who has no score."""
    parts = []
    for task, errors in zip(table.tasks, table.error_TM, strict=True):
        lacking = [name for name, error in zip(table.models, errors, strict=True) if not np.isfinite(error)]
        parts.append(f"{task} (not by {', '.join(lacking)})")
    return "; ".join(parts)


def _tasks(num_tasks: int) -> str:
    return "1 task" if num_tasks == 1 else f"{num_tasks} tasks"
