"""A study is trained: run by run, by as many processes as there are, each run by one of them and once."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foreloom.files import check_writable
from foreloom.lab import ladder, runs
from foreloom.lab.runs import Outcome, Run, say
from foreloom.lab.study.locks import Lock, holder_of, locked
from foreloom.lab.study.resolve import Planned
from foreloom.lab.study.results import csv_path, read_num_steps, read_outcome, write_results
from foreloom.monitoring.console import duration
from foreloom.monitoring.metrics_file import FILE_NAME as METRICS_NAME
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.run import RECIPE_NAME
from foreloom.training.incidents import FutileRunError
from foreloom.training.signals import StopRequest, exit_code

RUNS, LOCKS = "runs", ".locks"
"""In the folder of a study: the folders of its runs, and who is training which."""

WAIT_SECONDS = 15.0

State = Literal["absent", "begun", "running", "finished", "diverged", "failed", "stopped"]


@dataclass(frozen=True)
class Status:
    """How far a run has come."""

    planned: Planned
    state: State
    step: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    words: str = ""
    """Who trains it, or what it said last."""


class _StopOfEither:
    """The stop asked for; and a lost lock, which stops the run at hand."""

    def __init__(self, stop: StopRequest, lock: Lock) -> None:
        self._stop, self._lock = stop, lock

    @property
    def signal_number(self) -> int:
        return self._stop.signal_number or (signal.SIGTERM if self.is_lost else 0)

    @property
    def is_lost(self) -> bool:
        return self._lock.is_lost


def run_dir_of(planned: Planned, results: Path) -> Path:
    return results / planned.folder / RUNS / planned.label


def as_run(planned: Planned, results: Path) -> Run:
    """RecipeError where its data are not there."""
    run_dir = run_dir_of(planned, results)
    return runs.plan(planned.recipe, planned.overrides, run_dir, num_processes=planned.num_processes)


def part_of(planned: Sequence[Planned], index: int, of: int) -> list[Planned]:
    """Every `of`-th run from `index` on, so that large and small ones are shared out. All parts together are the
    study, and no run is in two."""
    if not 0 <= index < of:
        raise ValueError(f"--index {index} --of {of}: the index of {of} parts is 0 to {of - 1}.")
    return list(planned[index::of])


def execute(planned: Sequence[Planned], results: Path, stop: StopRequest, *, waits: bool = False) -> int:
    """Train what is not finished, and leave CSV and configuration of every run; the exit code: 1 where one failed, 130
    or 143 where a stop was asked for.

    Runs that finished are taken as they are, and so are those that diverged, which would again. A run that another
    process is training is left to it; or waited for, with `waits`, where nobody else would take it up if that process
    were killed. ValueError, before anything is trained, where a run's folder holds another one.
    """
    todo = [(one, as_run(one, results)) for one in planned]
    # A rung begins on what a shorter one has left, in whatever order the study names them.
    todo.sort(key=lambda one: ladder.first_cooldown_step(one[1]))
    for folder in dict.fromkeys(one.folder for one in planned):
        check_writable(results / folder / "any.csv", "--results")
    for _, run in todo:
        runs.state_of(run)
    failures, left = [], []
    for number, (one, run) in enumerate(todo, start=1):
        say(f"[{number}/{len(todo)}] {one.folder}/{one.label}: {one.facts['num_steps'] or '?'} steps")
        while waits and not stop.signal_number and (holder := holder_of(results / one.folder / LOCKS, one.label)):
            say(f"  waits for {holder}")
            time.sleep(WAIT_SECONDS)
        with locked(results / one.folder / LOCKS, one.label) as lock:
            if not isinstance(lock, Lock):
                say(f"  is left to {lock}")
                left.append(one.label)
                continue
            outcome = _train(one, run, [other for _, other in todo], results, _StopOfEither(stop, lock))
        if stop.signal_number:
            say("stopped; the same command goes on from here")
            return exit_code(stop.signal_number)
        if lock.is_lost:
            say("  is lost to a process that found this one silent")
            left.append(one.label)
        elif outcome.status == "failed" and not is_diverged(run, outcome):
            failures.append(outcome)
    if left:
        say(f"{len(left)} of {len(todo)} runs are in the hands of other processes: {', '.join(left)}")
    for outcome in failures:
        say(outcome.error)
    if failures:
        say(f"{len(failures)} of {len(todo)} runs failed: {', '.join(one.name for one in failures)}")
    return 1 if failures else 0


def _train(planned: Planned, run: Run, others: Sequence[Run], results: Path, stop: Any) -> Outcome:
    folder = results / planned.folder
    earlier = read_outcome(folder, planned.label)
    if earlier and earlier.status == "failed" and is_diverged(run, earlier):
        say("  has diverged before")
        return earlier
    failure = _climb(run, others, folder / LOCKS, stop) if planned.facts.get("num_cooldown_steps") else None
    outcome, was_there = (failure, False) if failure else runs.advance(run, stop, earlier)
    if stop.is_lost:  # what is written of it is the other's, who may have finished it
        return outcome
    if outcome is not earlier or not csv_path(folder, planned.label).is_file():
        write_results(planned, folder, run.folder, outcome)
    if outcome.status == "finished":
        say("  was there already" if was_there else f"  finished after {duration(outcome.seconds or 0)}")
    elif outcome.status == "failed":
        say("  diverged" if is_diverged(run, outcome) else f"  failed (exit code {outcome.exit_code})")
    return outcome


def _climb(run: Run, others: Sequence[Run], locks: Path, stop: Any) -> Outcome | None:
    """`ladder.climb`, while no other process trains the same piece of trunk for a rung of its own: that is waited
    for."""
    while runs.state_of(run) == "absent":
        with locked(locks, ladder.trunk_of(run).name) as lock:
            if isinstance(lock, Lock):
                stop_of_either: Any = _StopOfEither(stop, lock)
                failure = ladder.climb(run, others, stop_of_either)
                if stop.signal_number or not lock.is_lost:
                    return failure
                continue
        if stop.signal_number:
            return Outcome(run.name, str(run.recipe.path), list(run.overrides), str(run.folder), "stopped")
        say(f"  waits for {lock}, which trains the same steps before another cooldown")
        time.sleep(WAIT_SECONDS)
    return None


def is_diverged(run: Run, outcome: Outcome) -> bool:
    """Did the trainer end the run because its losses were not finite any more? To begin it again would change
    nothing."""
    if outcome.exit_code != FutileRunError.exit_code or not (run.folder / METRICS_NAME).is_file():
        return False
    steps = read_metrics(run.folder).steps
    return bool(steps) and steps[-1]["num_non_finite_steps"] > 0


def status_of(planned: Sequence[Planned], results: Path) -> Iterator[Status]:
    """How far each run has come, told by what lies in the folders; nothing is opened to be trained."""
    for one in planned:
        folder = results / one.folder
        run_dir = run_dir_of(one, results)
        outcome = read_outcome(folder, one.label)
        holder = holder_of(folder / LOCKS, one.label)
        step, loss, validation, is_non_finite = 0, None, None, False
        if (run_dir / METRICS_NAME).is_file():
            metrics = read_metrics(run_dir)
            losses = [event["loss"] for event in metrics.events if event["kind"] == "validation"]
            validation = losses[-1] if losses else None
            if metrics.steps:
                step, loss = metrics.steps[-1]["step"], metrics.steps[-1]["loss"]
                is_non_finite = metrics.steps[-1]["num_non_finite_steps"] > 0
        state: State = "begun" if (run_dir / RECIPE_NAME).is_file() else "absent"
        words = ""
        if holder:
            state, words = "running", holder
        elif outcome is not None:
            is_futile = outcome.exit_code == FutileRunError.exit_code
            state = "diverged" if is_futile and is_non_finite else outcome.status
            words = outcome.error.splitlines()[-1] if outcome.error else ""
            was, is_now = read_num_steps(folder, one.label), one.facts["num_steps"]
            if not words and was is not None and is_now is not None and was != is_now:
                words = f"was of {was:,} steps, and the study asks for {is_now:,} now: that is another run"
        yield Status(one, state, step, loss, validation, words)
