"""Evaluation tasks: which series are cut where and how far ahead they are forecast, read from a tasks.yaml."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from foreloom.config.loader import validate
from foreloom.config.located import Located, RecipeError, read_yaml
from foreloom.config.section import section
from foreloom.data.synthetic.address import locate, missing_data

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@section
class EvaluationTask:
    """One data set, cut into rolling windows. Window k begins `offset + k * stride` steps from a series' end."""

    name: str
    """Name of the task in tables."""
    path: Path | tuple[Path, ...]
    """The data, in any layout that training reads, or synthetic; several paths are pooled into one task."""
    prediction_length: Annotated[int, Field(ge=1)]
    """Steps to forecast."""
    num_rolls: Annotated[int, Field(ge=1)] = 1
    """Windows per series."""
    stride: Annotated[int, Field(ge=0)] = 0
    """Steps from one window to the next (0: prediction_length, so that windows do not overlap)."""
    offset: Annotated[int, Field(le=0)] = 0
    """Where the first window begins, counted back from the end (0: as late as lets the last window end the series)."""
    first_cut: datetime | None = None
    """The date of the last step before the first window, in place of offset; the data must state its times."""
    min_past: Annotated[int, Field(ge=1)] = 1
    """Steps that a window must have before it; windows with fewer are left out."""
    freq: str | None = None
    """Score only series of this frequency, written as the data state it (MS, h); none: those that state none; unset:
    all."""
    leave_out: tuple[str, ...] = ()
    """Series that are not scored, by item_id: those that another task scores too."""
    season_length: Annotated[int, Field(ge=0)] = 0
    """Season of MASE, SQL and the seasonal baselines in steps (0: by each series' frequency, as GluonTS does)."""
    quantile_levels: tuple[float, ...] = DECILES
    """Levels to score, ascending, 0.5 among them."""
    variates: Literal["split", "joint"] = "split"
    """Are the targets of a multivariate series forecast one by one (split) or together as a group (joint)?"""
    average_over: Literal["points", "targets"] = "points"
    """Are SQL, MASE, WAPE and WQL of all points together, or means of the scores of every window and target (fev)?"""
    covariates: bool = False
    """Does the forecaster get the series' covariates?"""

    def __post_init__(self) -> None:
        levels = self.quantile_levels
        if 0.5 not in levels or any(not 0 < q < 1 for q in levels) or list(levels) != sorted(set(levels)):
            raise ValueError(f"quantile_levels must ascend between 0 and 1 and hold 0.5, got {list(levels)}.")
        if not self.paths:
            raise ValueError("path is an empty list: name the data.")
        if self.first_cut and self.offset:
            raise ValueError("offset and first_cut both say where the first window begins: give one of them.")
        if self.offset and self.offset + (self.num_rolls - 1) * self.roll_stride + self.prediction_length > 0:
            raise ValueError(
                f"window {self.num_rolls} would end after the series: offset {self.offset} leaves no room for "
                f"{self.num_rolls} windows of {self.prediction_length} steps, {self.roll_stride} apart. Use offset "
                f"{self.first_offset_of_last_windows} or less."
            )

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.path if isinstance(self.path, tuple) else (self.path,)

    @property
    def roll_stride(self) -> int:
        return self.stride or self.prediction_length

    @property
    def first_offset_of_last_windows(self) -> int:
        return -(self.prediction_length + (self.num_rolls - 1) * self.roll_stride)

    def cuts(self, length: int, timestamps: np.ndarray | None = None) -> list[int]:
        """Where the windows of a series of `length` steps begin, oldest first; windows without a past are left out.

        `timestamps`, datetime64 (length,), are needed where `first_cut` is a date.
        """
        return list(self.rolls(length, timestamps).values())

    def rolls(self, length: int, timestamps: np.ndarray | None = None) -> dict[int, int]:
        """The number of each window -> where it begins, see `cuts`."""
        if self.first_cut:
            assert timestamps is not None
            first = int(np.searchsorted(timestamps, np.datetime64(self.first_cut), side="right"))
        else:
            first = length + (self.offset or self.first_offset_of_last_windows)
        starts = {roll: first + roll * self.roll_stride for roll in range(self.num_rolls)}
        latest = length - self.prediction_length
        return {roll: cut for roll, cut in starts.items() if self.min_past <= cut <= latest}


def read_tasks(path: str | Path, data_root: str | Path | None = None) -> list[EvaluationTask]:
    """The tasks of a YAML file, a list under `tasks:`.

    Relative data paths are relative to `data_root`, or else to the file. Raises `RecipeError` (a ValueError) listing
    every problem as `file:line: key: what was expected`.
    """
    path = Path(path)
    located = read_yaml(path)
    problems: list[str] = []
    tasks: list[EvaluationTask] = []
    for i, raw in enumerate(_entries(path, located)):
        task, wrong = validate(EvaluationTask, raw, located, f"tasks.{i}")
        problems.extend(wrong)
        if wrong:
            continue
        where = located.where(f"tasks.{i}.path")
        try:
            task = _below(Path(data_root) if data_root is not None else path.parent, task)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        problems.extend(_no_data(where, Path(one)) for path in task.paths for one in missing_data(path))
        if task.name in (other.name for other in tasks):
            problems.append(f"{located.where(f'tasks.{i}.name')}: a task named {task.name!r} is already listed above.")
        tasks.append(task)
    if problems:
        raise RecipeError(problems)
    return tasks


def _entries(path: Path, located: Located) -> list[object]:
    values = located.values
    if not isinstance(values, Mapping) or not isinstance(values.get("tasks"), list) or not values["tasks"]:
        raise RecipeError(
            [f"{path}:1: expected a list of tasks under `tasks:`, each with name, path, prediction_length."]
        )
    unknown = [key for key in values if key != "tasks"]
    if unknown:
        raise RecipeError([f"{located.where(key)}: {key}: unknown key; only `tasks` is read." for key in unknown])
    return values["tasks"]


def _below(root: Path, task: EvaluationTask) -> EvaluationTask:
    resolved = tuple(Path(locate(path, lambda one: root / Path(one).expanduser())[0]) for path in task.paths)
    return dataclasses.replace(task, path=resolved if isinstance(task.path, tuple) else resolved[0])


def _no_data(where: str, path: Path) -> str:
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f"{where}: no data at {path}.{f' Did you mean {close[0]}?' if close else ''}"
