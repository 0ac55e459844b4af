"""A suite: a list of evaluation tasks that others score too, read from a YAML file that ships with foreloom."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from foreloom.config.loader import validate
from foreloom.config.located import Located, RecipeError, read_yaml
from foreloom.config.section import section
from foreloom.evaluation.metrics import METRICS

LISTS = Path(__file__).with_name("lists")
"""The folder of the suites that come with foreloom, one YAML file each."""


@section
class SuiteTask:
    """One task of a suite: a data set of the hub, its windows and, where the suite states them, season and columns."""

    name: str
    """Name of the task on the suite's board."""
    repo: str = ""
    """Data set repository on the Hugging Face hub (empty: the suite's)."""
    config: str = ""
    """Configuration, folder or file in that repository (empty: the task's name)."""
    prediction_length: Annotated[int, Field(ge=1)]
    """Steps to forecast."""
    num_rolls: Annotated[int, Field(ge=0)] = 1
    """Windows a series (0: as many as fit into a tenth of the shortest series, 1 to 20, the rule of GIFT-Eval)."""
    stride: Annotated[int, Field(ge=0)] = 0
    """Steps from one window to the next (0: prediction_length)."""
    offset: Annotated[int, Field(le=0)] = 0
    """Where the first window begins, counted back from the end (0: as late as lets the last window end the series)."""
    first_cut: datetime | None = None
    """The date of the last step known to the first window, in place of `offset`."""
    min_past: Annotated[int, Field(ge=1)] = 1
    """Steps that a window must have before it; windows with fewer are left out."""
    season_length: Annotated[int, Field(ge=0)] = 0
    """Season of scaled errors in steps (0: by each series' frequency)."""
    targets: tuple[str, ...] = ()
    """Columns to forecast (none: `target`, or else every column of numbers over time)."""
    past: tuple[str, ...] = ()
    """Columns of covariates that are known up to the cut."""
    future: tuple[str, ...] = ()
    """Columns of covariates that are known ahead."""
    static: tuple[str, ...] = ()
    """Columns with one value a series."""
    places: tuple[str, ...] = ()
    """Folders or files below a data root where the set may lie, tried in order (none: `config`). `a + b` is one set in
    two parts."""

    def __post_init__(self) -> None:
        if self.first_cut and self.offset:
            raise ValueError("offset and first_cut both say where the first window begins: give one of them.")


@section
class Suite:
    """Tasks and how their scores are read."""

    name: str
    """Name of the suite, that of its file."""
    title: str
    """What people call it."""
    metrics: tuple[str, ...]
    """The metrics it is read by, the first one ranks."""
    repo: str = ""
    """Data set repository on the Hugging Face hub that holds the data sets of tasks without one of their own."""
    variable: str = ""
    """Environment variable that names the data root where others keep this suite."""
    protocol: Literal["windows", "ltsf"] = "windows"
    """Windows as `EvaluationTask` cuts them, or the long-term forecasting protocol on scaled values."""
    ranking: Literal["relative", "skill", "rank"] = "relative"
    """How its board is made: relative scores (Chronos), skill and win rate (fev), or with a mean rank (GIFT-Eval)."""
    average_over: Literal["points", "targets"] = "points"
    """Of the tasks, see `EvaluationTask`."""
    tasks: tuple[SuiteTask, ...]
    """In the order of the published list."""

    def task(self, name: str) -> SuiteTask:
        """The task of that name; the suite must hold it."""
        return next(task for task in self.tasks if task.name == name)


def names() -> list[str]:
    """Names of the suites that come with foreloom."""
    return sorted(path.stem for path in LISTS.glob("*.yaml"))


def load(name: str | Path) -> Suite:
    """The suite of that name, or the one in a YAML file of the same form.

    Raises `RecipeError` (a ValueError) for a name that is not known, with the nearest one, and for a file with errors,
    listing every one as `file:line: key: what was expected`.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return _read(path)
    if str(name) not in names():
        close = difflib.get_close_matches(str(name), names(), n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise RecipeError([f"{name}: no such suite.{hint} The suites are {', '.join(names())}."])
    return _read(LISTS / f"{name}.yaml")


def _read(path: Path) -> Suite:
    located = read_yaml(path)
    raw = located.values
    if not isinstance(raw, Mapping) or not isinstance(raw.get("tasks"), list) or not raw["tasks"]:
        raise RecipeError([f"{path}:1: expected a suite: title, metrics, and a list under `tasks:`."])
    if "part_of" in raw:
        return _part(path, located)
    suite, problems = validate(Suite, {**raw, "name": path.stem}, located, "")
    problems += _unknown_metrics(located, raw.get("metrics"))
    problems += _twice(located, [task.get("name") if isinstance(task, Mapping) else None for task in raw["tasks"]])
    if problems:
        raise RecipeError(problems)
    tasks = tuple(
        dataclasses.replace(task, repo=task.repo or suite.repo, config=task.config or task.name) for task in suite.tasks
    )
    return dataclasses.replace(suite, tasks=tasks)


def _part(path: Path, located: Located) -> Suite:
    """A file that names some tasks of another suite: part_of, tasks, and a title of its own."""
    raw: dict[str, Any] = dict(located.values)
    try:
        whole = load(raw["part_of"])
    except ValueError as error:
        raise ValueError(f"{located.where('part_of')}: part_of: {error}") from error
    unknown = [key for key in raw if key not in ("part_of", "title", "tasks")]
    problems = [
        f"{located.where(key)}: {key}: unknown setting; a part has title, part_of and tasks." for key in unknown
    ]
    known = [task.name for task in whole.tasks]
    for i, task in enumerate(raw["tasks"]):
        if task not in known:
            close = difflib.get_close_matches(str(task), known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            problems.append(f"{located.where(f'tasks.{i}')}: tasks.{i}: {whole.name} has no task {task!r}.{hint}")
    problems += _twice(located, raw["tasks"])
    if problems:
        raise RecipeError(problems)
    tasks = tuple(whole.task(name) for name in raw["tasks"])
    return dataclasses.replace(whole, name=path.stem, title=raw.get("title", path.stem), tasks=tasks)


def _unknown_metrics(located: Located, metrics: object) -> list[str]:
    problems = []
    for i, name in enumerate(metrics if isinstance(metrics, list) else ()):
        if name not in METRICS:
            close = difflib.get_close_matches(str(name), METRICS, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            where = f"{located.where(f'metrics.{i}')}: metrics.{i}"
            problems.append(f"{where}: no metric {name!r}.{hint} They are {', '.join(METRICS)}.")
    return problems


def _twice(located: Located, task_names: Sequence[object]) -> list[str]:
    return [
        f"{located.where(f'tasks.{i}')}: a task named {name!r} is already listed above."
        for i, name in enumerate(task_names)
        if name is not None and name in task_names[:i]
    ]
