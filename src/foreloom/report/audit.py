"""A leak audit as tables: a row a task, a row an overlap."""

from __future__ import annotations

from collections.abc import Sequence

from foreloom.audit.audit import Audit
from foreloom.report.tables import Cell, Column, ScoreTable


def tasks_table(found: Audit, title: str, notes: Sequence[str] = ()) -> ScoreTable:
    """A row a task: series and scored windows, and how many of them lie in the training data; in total."""
    columns = [
        Column("Task", "text"),
        *(Column(name, "count") for name in ("series", "in training", "windows", "windows in training", "longest")),
    ]
    rows: list[list[Cell]] = [
        [one.task, one.num_series, one.num_series_found, *_windows(one.num_windows, one.num_windows_found), one.longest]
        for one in found.tasks
    ]
    total = lambda name: sum(getattr(one, name) for one in found.tasks)
    summary: list[Cell] = [
        "total", total("num_series"), total("num_series_found"),
        *_windows(total("num_windows"), total("num_windows_found")), max(one.longest for one in found.tasks),
    ]  # fmt: skip
    return ScoreTable(columns, rows, [summary], title, (*notes, *_unfit(found)))


def card_section(found: Audit, against: str) -> tuple[str, str]:
    """Title and text of what a model card says of it."""
    text = (
        f"By content, copies that were rescaled, flipped, reversed or averaged over steps included (`foreloom data "
        f"audit`): {found.training.num_rows:,} training series beside {found.benchmark.num_rows:,} of the benchmark. A "
        "window counts where a step that is scored was in training."
    )
    return f"Training data beside {against}", f"{text}\n\n{tasks_table(found, '').to_markdown()}"


def _windows(num: int, num_found: int) -> tuple[Cell, Cell]:
    return (num, num_found) if num else (None, None)


def overlaps_table(found: Audit, most: int) -> ScoreTable:
    """A row an overlap, the longest first, at most so many."""
    columns = [
        Column("training series", "text"), Column("from step", "count"), Column("steps", "count"),
        Column("is", "text"), Column("from step", "count"), Column("steps", "count"),
        Column("r", "score"), Column("transform", "text"),
    ]  # fmt: skip
    ranked = sorted(found.overlaps, key=lambda one: -one.benchmark_length)
    rows: list[list[Cell]] = [
        [
            _called(one.series, one.target), one.start, one.length,
            f"{one.tasks[0]}: {_called(one.benchmark_series, one.benchmark_target)}", one.benchmark_start,
            one.benchmark_length, one.correlation, one.transform,
        ]
        for one in ranked[:most]
    ]  # fmt: skip
    left = len(ranked) - most
    return ScoreTable(columns, rows, [], "Overlaps", (f"{left:,} more, shorter; --json has all",) if left > 0 else ())


def _called(series: str, target: int) -> str:
    return f"{series}[{target}]" if target else series


def _unfit(found: Audit) -> list[str]:
    """Rows that say nothing, as sentences."""
    return [
        f"{one.num_short:,} of {one.num_rows:,} series of {name} have fewer than 16 values, {one.num_constant:,} are "
        "constant: no copy of them can be told."
        for name, one in (("the training data", found.training), ("the benchmark", found.benchmark))
        if one.num_short or one.num_constant
    ]
