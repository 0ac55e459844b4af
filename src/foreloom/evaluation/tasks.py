"""Evaluation tasks: which series are cut where and how far ahead they are forecast, read from a tasks.yaml.

Axes: I series, N windows.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from foreloom.config.loader import validate
from foreloom.config.located import Located, RecipeError, read_yaml
from foreloom.config.section import section
from foreloom.data.formats.reader import open_source
from foreloom.data.source import Source
from foreloom.data.synthetic.address import locate, missing_data
from foreloom.data.tables.options import TableOptions
from foreloom.evaluation.metrics import BAND_ENDS

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STEPS_OF_A_BATCH = 256 * 512
"""Context steps of one forward where contexts are of one length: 256 windows of 512 steps, 42 of 3,072."""
_SEASONS = {"s": 3600, "min": 1440, "h": 24, "B": 5, "ME": 12, "MS": 12, "QE": 4, "QS": 4}
_NO_SEASON = {
    "D", "W", "YE", "YS", "BYE", "BYS", "BME", "BMS", "BQE", "BQS", "SME", "SMS", "C", "CBME", "CBMS", "bh", "cbh",
    "ms", "us", "ns", "REQ", "FY5253", "FY5253Q", "WOM", "LWOM",
}  # fmt: skip
_OLD_SPELLINGS = {
    "S": "s", "T": "min", "H": "h", "L": "ms", "U": "us", "N": "ns", "M": "ME", "Q": "QE", "BM": "BME", "BQ": "BQE",
    "SM": "SME", "CBM": "CBME", "BH": "bh", "CBH": "cbh", "Y": "YE", "A": "YE", "AS": "YS", "BY": "BYE", "BA": "BYE",
    "BAS": "BYS",
}  # fmt: skip
_SECONDS = {"s": 1, "min": 60, "h": 3600, "D": 86400}


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
    table: TableOptions | None = None
    """Of tables with a row a series and time step: what they do not say themselves (id_column, target, known_ahead,
    freq ...)."""

    # What a file of tasks does not set, see `SlidingTask`.
    every_window = False
    """Are all windows scored that fit, and not `num_rolls` of them?"""
    context_length = 0
    """Steps before each window that the forecaster sees (0: as many as it uses)."""

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

    @property
    def asked_levels(self) -> tuple[float, ...]:
        """Levels that forecasts hold, ascending: those to score and the ends of the bands whose coverage is counted."""
        levels = self.quantile_levels
        return levels if levels == (0.5,) else tuple(sorted({*levels, *BAND_ENDS}))

    @property
    def batch_size(self) -> int:
        """Rows of one forward where nobody says how many."""
        return 256

    def open(self) -> Sequence[Source]:
        """The data."""
        return [open_source(path, table=self.table or TableOptions()) for path in self.paths]

    def describe(self, name: str, roll: int, cut: int) -> str:
        """A window of the series `name`, for errors."""
        return f"series {name!r} of task {self.name!r}"

    def rolls(
        self, length_I: np.ndarray, first_I: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every window of series of these lengths, series by series, the oldest first; int64 (N,) each.

        The position of its series in `length_I`, its number in that series, and its cut: the steps before it. Windows
        with too short a past are left out, and so are those that would end after the series. `first_I` says where the
        first windows begin where `first_cut` is a date.
        """
        stride = self.roll_stride
        if self.every_window:
            first_I = np.full_like(length_I, self.min_past)
        elif first_I is None:
            first_I = length_I + (self.offset or self.first_offset_of_last_windows)
        low_I = np.maximum(-((first_I - self.min_past) // stride), 0)
        high_I = (length_I - self.prediction_length - first_I) // stride
        if not self.every_window:
            high_I = np.minimum(high_I, self.num_rolls - 1)
        num_I = np.maximum(high_I - low_I + 1, 0)
        i_N = np.repeat(np.arange(len(num_I)), num_I)
        roll_N = low_I[i_N] + np.arange(len(i_N)) - (np.cumsum(num_I) - num_I)[i_N]
        return i_N, roll_N, first_I[i_N] + roll_N * stride


@section
class OpenedTask(EvaluationTask):
    """A task on data that are open already; `path` says where they come from."""

    data: Any
    """The `Source`."""
    context_length: Annotated[int, Field(ge=0)] = 0
    """Steps before each window that the forecaster sees (0: as many as it uses)."""
    extra_levels: tuple[float, ...] = ()
    """Quantile levels that forecasts hold besides those to score and the ends of bands."""

    @property
    def asked_levels(self) -> tuple[float, ...]:
        return tuple(sorted({*super().asked_levels, *self.extra_levels}))

    def open(self) -> Sequence[Source]:
        return [self.data]


@section
class SlidingTask(OpenedTask):
    """Every window of a data set at one horizon, one step apart, the context of each as long as the others'.

    Its windows are scored and compared by squared and absolute errors of the median; MASE and SQL are not defined.
    `data` is scaled where the protocol scales it.
    """

    context_length: Annotated[int, Field(ge=1)]
    """Steps before each window that the forecaster sees. `min_past` is no less."""
    stride: int = 1
    quantile_levels: tuple[float, ...] = (0.5,)

    every_window = True

    @property
    def batch_size(self) -> int:
        return max(STEPS_OF_A_BATCH // self.context_length, 1)

    def describe(self, name: str, roll: int, cut: int) -> str:
        return f"{name!r} for window {roll:,} (context from its step {cut - self.context_length:,} on)"


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


def season_length(freq: str) -> int:
    """Steps of one season at a pandas frequency alias, in the old or the new spelling: h 24, 30min 48, MS 12, D 1.

    A multiple divides the season (2h: 12); where it does not divide it evenly the season is 1. Raises ValueError for
    text that is not a frequency.
    """
    parts = re.findall(r"(\d*)([A-Za-z]+)((?:-[A-Z0-9]+)?)", freq)
    if not parts or "".join(f"{n}{name}{anchor}" for n, name, anchor in parts) != freq:
        raise ValueError(f"{freq!r} is not a frequency. Use a pandas alias such as h, 30min, D, W-SUN, MS or QS.")
    multiples = [(int(n or 1), _spelling(name, freq)) for n, name, _ in parts]
    n, name = multiples[0] if len(multiples) == 1 else _compound(multiples, freq)
    season = _SEASONS.get(name, 1)
    return season // n if n and season % n == 0 else 1


def _spelling(name: str, freq: str) -> str:
    name = _OLD_SPELLINGS.get(name, name)
    if name not in _SEASONS and name not in _NO_SEASON:
        close = difflib.get_close_matches(name, [*_SEASONS, *_NO_SEASON], n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"{freq!r} is not a frequency: pandas has no alias {name!r}.{hint}")
    return name


def _compound(multiples: list[tuple[int, str]], freq: str) -> tuple[int, str]:
    """1h30min as 90 of its smallest unit, min."""
    if not all(name in _SECONDS for _, name in multiples):
        raise ValueError(f"{freq!r} is not a frequency: only D, h, min and s add up.")
    smallest = min((name for _, name in multiples), key=_SECONDS.__getitem__)
    return sum(n * _SECONDS[name] for n, name in multiples) // _SECONDS[smallest], smallest
