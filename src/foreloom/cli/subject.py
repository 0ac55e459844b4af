"""What `foreloom evaluate` scores models on: a suite, tasks of a file, or every window of a data set."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from foreloom.data.tables.options import TableOptions

if TYPE_CHECKING:
    from foreloom.evaluation.result import Evaluation
    from foreloom.evaluation.sliding import SlidingOptions
    from foreloom.evaluation.suites import Suite
    from foreloom.evaluation.tasks import EvaluationTask


@dataclass(frozen=True)
class Subject:
    """What models are scored on."""

    name: str
    """Of the CSV of scores where nobody gives it one."""
    title: str
    evaluate: Callable[..., Evaluation]
    """`evaluate_tasks` or `evaluate_sliding` on it: evaluate(forecasters, evaluator=...)."""
    setting: str = ""
    """What a heading says besides."""
    metrics: Sequence[str] | None = None
    """The columns of the table (default: by its rows)."""
    notes: Sequence[str] = ()
    read: Sequence[Path] = ()
    """The files and folders that hold it, none of which the scores are written over."""


def tasks_file(path: Path, data_root: Path | None) -> Subject:
    from foreloom.evaluation.evaluate import evaluate_tasks
    from foreloom.evaluation.tasks import read_tasks

    tasks = read_tasks(path, data_root)
    return Subject(path.stem, path.name, partial(evaluate_tasks, tasks=tasks), read=[path, *_data_of(tasks)])


def _data_of(tasks: Iterable[EvaluationTask]) -> list[Path]:
    return [Path(path) for task in tasks for path in task.paths]


def suite_tasks(name: str, data_root: Path | None) -> Subject:
    """The tasks whose data lies below the root; the others are named in a note with the command that fetches them."""
    from foreloom.evaluation import suites
    from foreloom.evaluation.evaluate import evaluate_tasks
    from foreloom.evaluation.sliding import SlidingOptions, evaluate_sliding, horizons_of

    suite = suites.load(name)
    root = suites.data_root_of(suite, data_root)
    if suite.protocol == "windows":
        tasks, missing = suites.suite_tasks(name, root)
        on_tasks = partial(evaluate_tasks, tasks=tasks)
        notes = _missing(suite, missing, root)
        return Subject(suite.name, suite.title, on_tasks, metrics=suite.metrics, notes=notes, read=_data_of(tasks))
    found, missing = suites.find_data(suite, root)
    notes = _missing(suite, missing, root)
    horizons = []
    for (path, season), of_file in groupby(found, key=lambda one: (one.paths[0], one.task.season_length)):
        named = [(one.task.name, one.task.prediction_length) for one in of_file]
        horizons += horizons_of(path, SlidingOptions(season_length=season or None), named)
    options = SlidingOptions()
    on_windows = partial(evaluate_sliding, horizons=horizons, options=options)
    read = [Path(path) for one in found for path in one.paths]
    return Subject(suite.name, suite.title, on_windows, _setting(options), notes=notes, read=read)


def _missing(suite: Suite, missing: Sequence[str], root: Path) -> list[str]:
    """What is missing, as a note; an error where that is everything."""
    from foreloom.evaluation.suites import missing_sentence

    sentence = missing_sentence(suite, missing, root)
    if len(missing) == len(suite.tasks):
        raise ValueError(sentence)
    return [sentence] if sentence else []


def every_window(data: Path, options: SlidingOptions) -> Subject:
    from foreloom.evaluation.sliding import evaluate_sliding, horizons_of

    on_windows = partial(evaluate_sliding, horizons=horizons_of(data, options), options=options)
    return Subject(data.stem, data.name, on_windows, _setting(options), read=[data])


def _setting(options: SlidingOptions) -> str:
    return f", protocol {options.protocol}, normalization {options.normalization}"


def sliding_options(typed: Mapping[str, Any], table: TableOptions) -> SlidingOptions:
    """Options as typed: lists are comma separated. ValueError names the option that is not one of its values."""
    from foreloom.evaluation.ltsf import WindowProtocol
    from foreloom.evaluation.sliding import Normalization, SlidingOptions

    def one_of(option: str, known: tuple[Any, ...]) -> Any:
        value = typed[option] or known[0]
        if value not in known:
            close = difflib.get_close_matches(value, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"{option} {value!r}: expected {' or '.join(known)}.{hint}")
        return value

    horizons, channels = typed["--horizon"], typed["--channels"]
    steps = [part.strip() for part in (horizons or "").split(",")]
    if horizons is not None and not all(step.isdecimal() and int(step) for step in steps):
        raise ValueError(f"--horizon {horizons!r}: write whole numbers of steps, comma separated: 96,192.")
    return SlidingOptions(
        horizons=None if horizons is None else tuple(dict.fromkeys(map(int, steps))),
        context_length=typed["--context-length"],
        protocol=one_of("--protocol", get_args(WindowProtocol)),
        normalization=one_of("--normalization", get_args(Normalization)),
        channels=None if channels is None else tuple(name.strip() for name in channels.split(",")),
        date_column=typed["--date-column"],
        season_length=typed["--season"],
        table=table,
    )
