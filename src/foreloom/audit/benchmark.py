"""What a benchmark holds: the rows that its tasks score, each once, and the windows that they score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreloom.audit.rows import Rows, last_parts
from foreloom.data.formats.reader import open_source
from foreloom.data.source import Source
from foreloom.evaluation.plan import Plan, plan_windows
from foreloom.evaluation.tasks import EvaluationTask

_ALL = 2**62
_SERIES = np.int64(2**40)
"""More than a source has."""


@dataclass(frozen=True)
class BenchmarkTask:
    """Its rows of `Benchmark.rows`, and its windows, by row; no windows where only data are named.

    Axes: N windows.
    """

    name: str
    rows: np.ndarray
    """int64, sorted."""
    row_N: np.ndarray
    begin_N: np.ndarray
    """First step that is scored."""
    horizon: int


@dataclass(frozen=True)
class Benchmark:
    """Rows, and the tasks that they belong to."""

    rows: Rows
    tasks: Sequence[BenchmarkTask]

    @staticmethod
    def of_tasks(tasks: Sequence[EvaluationTask]) -> Benchmark:
        """Raises ValueError as `plan_windows` does: for a task without a window."""
        opened: dict[tuple[str, str], int] = {}
        sources: list[Source] = []
        planned = []
        for task in tasks:
            keys = [(str(path), repr(task.table)) for path in task.paths]
            for key, source in zip(keys, task.open(), strict=True):
                if opened.setdefault(key, len(sources)) == len(sources):
                    sources.append(source)
            plan = plan_windows(task, [sources[opened[key]] for key in keys], 1, _ALL)
            number_N = np.array([opened[key] for key in keys])[plan.source_N]
            planned.append((task, number_N, plan))
        items = [
            np.unique(np.concatenate([plan.item_N[number_N == n] for _, number_N, plan in planned]))
            for n in range(len(sources))
        ]
        rows = Rows.of(sources, items, [source.lengths for source in sources])
        return Benchmark(rows, [_task_of(rows, *of_task) for of_task in planned])

    @staticmethod
    def of_data(paths: Sequence[str | Path]) -> Benchmark:
        """Each path a task of its own, all of whose rows count. Raises ValueError as `open_source` does."""
        sources = [open_source(path) for path in paths]
        rows = Rows.of(sources, [np.arange(len(one)) for one in sources], [one.lengths for one in sources])
        none, names = np.empty(0, np.int64), [one.name for one in sources]
        return Benchmark(
            rows,
            [
                BenchmarkTask(last_parts(one.name, names), np.flatnonzero(rows.source_R == n), none, none, 0)
                for n, one in enumerate(sources)
            ],
        )


def _task_of(rows: Rows, task: EvaluationTask, number_N: np.ndarray, plan: Plan) -> BenchmarkTask:
    """Windows of several targets are as many windows of one."""
    series_R = rows.source_R * _SERIES + rows.item_R  # ascending, the targets of a series side by side
    first_N = np.searchsorted(series_R, number_N * _SERIES + plan.item_N) + plan.variate_N
    repeat_N = np.repeat(np.arange(plan.num_windows), plan.num_targets_N)
    row_N = first_N[repeat_N] + np.arange(len(repeat_N)) - np.searchsorted(repeat_N, repeat_N)
    return BenchmarkTask(task.name, np.unique(row_N), row_N, plan.cut_N[repeat_N], task.prediction_length)
