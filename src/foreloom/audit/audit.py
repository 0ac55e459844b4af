"""The audit: which series of training data hold parts of a benchmark's, found by content.

Each row of the training data is looked up in the fingerprints of the benchmark; what looks alike is laid on each other
and compared step by step.
"""

from __future__ import annotations

import math
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np

from foreloom.audit.alignment import Stretch, align
from foreloom.audit.benchmark import Benchmark, BenchmarkTask
from foreloom.audit.fingerprint import FACTORS, NUM_BLOCKS
from foreloom.audit.index import Candidate, Index
from foreloom.audit.rows import Rows, last_parts
from foreloom.run.machine import find_machine

_MOST_ENTRIES = 16
"""Rows of the benchmark that one row is compared with, the likeliest first."""
_MOST_PLACES = 4
"""Of each of them."""
_NUM_TURNS = 4
"""Forwards, backwards, and the negative of each."""
_ROWS_KEPT = 64
_SPARE_BITS = 10
"""A chance agreement is reported in one audit of 2**10."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Overlap:
    """A stretch of the benchmark in a row of the training data. Steps count from 0."""

    source: str
    """Name of the training data set."""
    item: int
    """Series of it."""
    series: str
    """Its id."""
    target: int
    """Of its targets."""
    start: int
    length: int
    tasks: tuple[str, ...]
    """That score the benchmark's series."""
    benchmark_series: str
    benchmark_target: int
    benchmark_start: int
    benchmark_length: int
    transform: str
    """What was done to the benchmark's values, in words."""
    scale: float
    shift: float
    correlation: float
    """Of what is new at each step (innovations), in magnitude."""


@dataclass(frozen=True)
class TaskOverlap:
    """What of a task lies in the training data."""

    task: str
    num_series: int
    """Scored; each target counts."""
    num_series_found: int
    num_windows: int
    """Scored; 0 where the benchmark is data without tasks."""
    num_windows_found: int
    """Of which a step that is scored lies in the training data."""
    longest: int
    """Steps of the longest stretch."""


@dataclass(frozen=True)
class Unfit:
    """Rows in which no stretch can be told apart."""

    num_rows: int
    num_short: int
    """Fewer than 16 values."""
    num_constant: int


@dataclass(frozen=True)
class Audit:
    """What was found, by task and one by one."""

    tasks: Sequence[TaskOverlap]
    overlaps: Sequence[Overlap]
    training: Unfit
    benchmark: Unfit


Watch = Callable[[Iterable[int], int], Iterable[int]]
"""watch(numbers of rows, how many): the same numbers, while someone tells how far it is."""


def audit(training: Rows, benchmark: Benchmark, watch: Watch = lambda rows, total: rows) -> Audit:
    """Look for every row of `benchmark` in every row of `training`; `watch` sees the rows go by.

    Raises ValueError where nothing of the benchmark can be told apart. Uses all cores (on Linux); memory is that of the
    benchmark's fingerprints, and some of each core's own.
    """
    ours = _Unfit()
    index = Index(ours.over(benchmark.rows.batches()), benchmark.rows.num_points)
    if not len(index):
        raise ValueError(
            f"none of the benchmark's {len(benchmark.rows):,} series has {NUM_BLOCKS} values in a row that change from "
            "step to step: there is nothing to look for."
        )
    comparisons = max(training.num_points * benchmark.rows.num_points, 1) * len(FACTORS) * _NUM_TURNS
    least_bits = math.log2(comparisons) + _SPARE_BITS
    compare = partial(_compare, index, lru_cache(_ROWS_KEPT)(benchmark.rows.read), least_bits)
    theirs = _Unfit()
    found: list[tuple[int, int, Stretch]] = []

    def numbers() -> Iterator[int]:
        first = 0
        for num_rows, of_batch in _on_all_cores(compare, theirs.over(training.batches()), training.num_batches):
            found.extend((first + row, entry, stretch) for row, entry, stretch in of_batch)
            yield from range(first, first := first + num_rows)

    deque(watch(numbers(), len(training)), maxlen=0)
    return _report(training, benchmark, found, theirs.seen(), ours.seen())


class _Unfit:
    """Counts rows that go by."""

    def __init__(self) -> None:
        self._num_rows = self._num_short = self._num_constant = 0

    def over(self, batches: Iterable[list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        for rows in batches:
            self._num_rows += len(rows)
            for row in rows:
                if len(row) - np.isnan(row).sum() < NUM_BLOCKS:
                    self._num_short += 1
                elif not np.nanmin(row) < np.nanmax(row):
                    self._num_constant += 1
            yield rows

    def seen(self) -> Unfit:
        return Unfit(self._num_rows, self._num_short, self._num_constant)


def _on_all_cores(work: Callable[[A], B], batches: Iterable[A], num_batches: int) -> Iterator[B]:
    """What `work` makes of each, in their order, a few at once. A core is a process, forked so that the index is there
    once: `work` is many short calls, and threads of one process would make them in turn."""
    num_cores = min(find_machine().cores_allowed, num_batches) if sys.platform == "linux" else 1
    if num_cores <= 1:
        yield from map(work, batches)
        return
    running: deque[Future[B]] = deque()
    with ProcessPoolExecutor(num_cores, get_context("fork"), initializer=_begin, initargs=(work,)) as pool:
        for one in batches:
            running.append(pool.submit(_do, one))
            if len(running) > 2 * num_cores:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _begin(work: Callable[[Any], Any]) -> None:
    """In a process of its own, which leaves it to the first to be interrupted."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do(one: Any) -> Any:
    return _work(one)


_work: Callable[[Any], Any]
"""Of a forked process."""


def _compare(
    index: Index, read: Callable[[int], np.ndarray], least_bits: float, rows: list[np.ndarray]
) -> tuple[int, list[tuple[int, int, Stretch]]]:
    """How many rows there are, and their stretches of the benchmark: row, row of the benchmark, stretch."""
    found: list[tuple[int, int, Stretch]] = []
    for number, candidates in groupby(index.candidates(rows), key=lambda one: one.row):
        stretches: dict[int, list[Stretch]] = {}
        tries: dict[int, int] = {}
        for one in candidates:
            if one.entry not in tries and len(tries) == _MOST_ENTRIES:
                continue
            of_entry = stretches.setdefault(one.entry, [])
            tries[one.entry] = tries.get(one.entry, 0) + 1
            if tries[one.entry] > _MOST_PLACES or any(_covers(stretch, one) for stretch in of_entry):
                continue
            stretch = align(read(one.entry), rows[number], one.seed, least_bits)
            if stretch is not None and stretch not in of_entry:
                of_entry.append(stretch)
        found += [(number, entry, stretch) for entry, of_entry in stretches.items() for stretch in of_entry]
    return len(rows), found


def _covers(stretch: Stretch, candidate: Candidate) -> bool:
    place = candidate.seed.other_border
    return stretch.other_start <= place <= stretch.other_start + stretch.other_length


def blocked(overlaps: Sequence[Overlap], names: Sequence[str]) -> list[dict[str, str | int]]:
    """A line for each series of the training data that overlaps, as `data.exclude` reads them; its longest stretch
    is the reason. `names` are those of all sources; lines have as much of them as tells them apart."""
    called = {name: last_parts(name, names) for name in names}
    lines: dict[tuple[str, int], dict[str, str | int]] = {}
    for one in sorted(overlaps, key=lambda one: -one.length):
        what = f"{one.tasks[0]}: {one.benchmark_series} from step {one.benchmark_start}"
        reason = f"audit: {one.length} steps from {one.start} on are {what} ({one.transform}, r {one.correlation:.4f})"
        line = {"source": called[one.source], "item": one.item, "series": one.series, "reason": reason}
        lines.setdefault((one.source, one.item), line)
    return list(lines.values())


def _report(
    training: Rows, benchmark: Benchmark, found: Sequence[tuple[int, int, Stretch]], theirs: Unfit, ours: Unfit
) -> Audit:
    tasks_of: dict[int, list[str]] = {}
    for task in benchmark.tasks:
        for row in task.rows.tolist():
            tasks_of.setdefault(row, []).append(task.name)
    overlaps = [
        Overlap(
            source=training.sources[training.source_R[row]].name,
            item=int(training.item_R[row]),
            series=training.series(row),
            target=int(training.target_R[row]),
            start=stretch.other_start,
            length=stretch.other_length,
            tasks=tuple(tasks_of[entry]),
            benchmark_series=benchmark.rows.series(entry),
            benchmark_target=int(benchmark.rows.target_R[entry]),
            benchmark_start=stretch.start,
            benchmark_length=stretch.length,
            transform=_in_words(stretch),
            scale=stretch.scale,
            shift=stretch.shift,
            correlation=min(stretch.correlation, 1.0),
        )
        for row, entry, stretch in found
    ]
    by_entry: dict[int, list[tuple[int, int]]] = {}
    for _, entry, stretch in found:
        by_entry.setdefault(entry, []).append((stretch.start, stretch.start + stretch.length))
    return Audit([_of_task(task, by_entry) for task in benchmark.tasks], overlaps, theirs, ours)


def _of_task(task: BenchmarkTask, by_entry: Mapping[int, list[tuple[int, int]]]) -> TaskOverlap:
    there = [row for row in task.rows.tolist() if row in by_entry]
    hits = [
        any(start < begin + task.horizon and begin < end for start, end in by_entry.get(row, ()))
        for row, begin in zip(task.row_N.tolist(), task.begin_N.tolist(), strict=True)
    ]
    longest = max((end - start for row in there for start, end in by_entry[row]), default=0)
    return TaskOverlap(task.name, len(task.rows), len(there), len(hits), sum(hits), longest)


def _in_words(stretch: Stretch) -> str:
    """`mean of 12 steps, rescaled, sign flipped, reversed`; of the same values, `identical`."""
    words = []
    many, few = sorted((abs(stretch.factor), abs(stretch.other_factor)), reverse=True)
    block = f"{'one' if min(stretch.factor, stretch.other_factor) < 0 else 'mean'} of {many} steps"
    if many == few > 1:
        words.append(f"alike by {block}")
    elif many > few:
        words.append(f"{block}{f' for {few}' * (few > 1)}{' of it' * (abs(stretch.other_factor) == many)}")
    magnitude = abs(stretch.scale)
    if not math.isclose(magnitude, 1, rel_tol=1e-4):
        words.append(f"times {magnitude:.4g}")
    if stretch.scale < 0:
        words.append("sign flipped")
    if stretch.is_shifted:
        words.append("shifted")
    if stretch.is_reversed:
        words.append("reversed")
    return ", ".join(words) or "identical"
