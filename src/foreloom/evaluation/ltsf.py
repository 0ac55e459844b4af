"""The LTSF protocol: a wide CSV, split in time, scaled by its training rows, scored on all windows of its test rows.

Splits and scaling are those of Informer (Zhou et al. 2021, arXiv:2012.07436) and TSLib, which long-horizon papers
share; contexts by horizon are those of Time-MoE (Shi et al. 2024, arXiv:2409.16040).

Axes: C channels, T rows.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.normalization import center_and_scale
from foreloom.data.tables import values
from foreloom.data.tables.frequency import count_steps, infer_freq, usual_freq
from foreloom.data.tables.long_table import instants, several_series
from foreloom.data.tables.read import Rows, read_rows
from foreloom.data.tables.roles import has_values
from foreloom.data.tables.times import read_times
from foreloom.evaluation.tasks import SlidingTask
from foreloom.evaluation.tasks import season_length as season_of

WindowProtocol = Literal["standard", "timemoe"]
"""`timemoe` leaves out each channel's last window, as Time-MoE's own evaluation does and its published scores were
made."""
HORIZONS = (96, 192, 336, 720)
_CONTEXTS = {96: 512, 192: 1024, 336: 2048, 720: 3072}
_MONTH_ROWS = 30 * 24
_FEWEST_ROWS = 3
"""To tell a frequency."""
_MOST_TWICE = 0.01
"""Share of the dates that may stand there twice: published files have a few, a table of several series has many."""


def default_context(prediction_length: int) -> int:
    """Context steps of a horizon: 96 -> 512, 192 -> 1024, 336 -> 2048, 720 -> 3072, else four horizons."""
    return _CONTEXTS.get(prediction_length, 4 * prediction_length)


class Split(NamedTuple):
    """Rows [0, train_end) are for training, [test_begin, test_end) for testing."""

    train_end: int
    test_begin: int
    test_end: int


def split_of(path: str | Path, num_rows: int) -> Split:
    """ETTh* files: 12, 4 and 4 months of 30 days; ETTm* the same at 15 minutes; others: 70, 10 and 20 percent."""
    name = Path(path).name.lower()
    per_hour = 1 if "etth" in name else 4 if "ettm" in name else None
    if per_hour is None:
        return Split(int(0.7 * num_rows), num_rows - int(0.2 * num_rows), num_rows)
    month = _MONTH_ROWS * per_hour
    if num_rows < 20 * month:
        raise ValueError(
            f"{path}: the name says that this is an ETT file, split into 12, 4 and 4 months of {month:,} rows, but it "
            f"has {num_rows:,} rows of {20 * month:,}. Take the whole file, or rename it to have it split 70/10/20."
        )
    return Split(12 * month, 16 * month, 20 * month)


@dataclass(frozen=True)
class LtsfTable:
    """A wide table in scaled values, with its split."""

    path: Path
    channels: tuple[Series, ...]
    """One variate each, float32, all rows: zero mean and unit deviation over the training rows."""
    season_length: int
    split: Split

    def task(
        self,
        prediction_length: int,
        context_length: int | None = None,
        protocol: WindowProtocol = "standard",
        *,
        name: str | None = None,
    ) -> SlidingTask:
        """The windows whose horizon lies in the test rows; the first one's context ends right before them.

        ValueError, with the numbers, where the rows are too few.
        """
        context_length = context_length or default_context(prediction_length)
        _, test_begin, test_end = self.split
        if context_length > test_begin:
            raise ValueError(
                f"{self.path}: a context of {context_length:,} steps does not fit before the test rows, which begin "
                f"after row {test_begin:,} of {test_end:,}. Use a shorter context."
            )
        is_last_left_out = protocol == "timemoe"
        need = prediction_length + is_last_left_out
        if test_end - test_begin < need:
            raise ValueError(
                f"{self.path}: a horizon of {prediction_length:,} steps needs {need:,} test rows (protocol "
                f"{protocol}), the last {test_end - test_begin:,} of {test_end:,} rows are for testing. Use a shorter "
                "horizon."
            )
        end = test_end - is_last_left_out
        return SlidingTask(
            name=name or f"{self.path.stem}-{prediction_length}",
            path=self.path,
            data=MemorySource([replace(one, target_VT=one.target_VT[:, :end]) for one in self.channels]),
            prediction_length=prediction_length,
            context_length=context_length,
            min_past=test_begin,
            season_length=self.season_length,
        )


def read_ltsf(
    path: str | Path,
    *,
    channels: Sequence[str] | None = None,
    date_column: str | None = None,
    season_length: int | None = None,
) -> LtsfTable:
    """Read a CSV whose first column (`date`, or `date_column`) holds the time and every other one a channel.

    `channels` limits it to some columns. The season is that of the dates' frequency unless it is given: 24 hourly, 96
    at 15 minutes. Empty cells and infinite values are missing. Raises ValueError, naming column and row, for what is
    not so.
    """
    path = Path(path)
    rows = _read(path)
    date_column = _date_column(path, rows.names, date_column)
    names = [name for name in rows.names if name != date_column and has_values(rows, name)]
    for name in channels or ():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Name some of these."
            raise ValueError(f"{path}: there is no column {name!r}; the channels are {', '.join(names)}. {hint}")
    names = list(dict.fromkeys(channels or names))
    if not names:
        raise ValueError(f"{path}: there is no column beside {date_column!r}; add those that hold the channels.")
    season = season_length or season_of(_frequency(rows, date_column))
    for note in rows.notes:
        warnings.warn(note, stacklevel=2)
    split = split_of(path, len(rows))
    scaled = (standardized(_numbers(rows, name), split.train_end, f"{path}: {name!r}") for name in names)
    series = (Series(name, one.astype(np.float32)[None]) for name, one in zip(names, scaled, strict=True))
    return LtsfTable(path, tuple(series), season, split)


def standardized(values_T: np.ndarray, train_end: int, where: str) -> np.ndarray:
    """float64: minus the mean, over the deviation (ddof 0) of the training rows; a constant is only centred."""
    train_T = values_T[:train_end]
    if not np.isfinite(train_T).any():
        raise ValueError(f"{where} holds no value in the {train_end:,} training rows. Leave this channel out.")
    (mean,), (deviation,) = center_and_scale(train_T[None], "zero")
    return (values_T - mean) / deviation


def _read(path: Path) -> Rows:
    if not path.is_file():
        raise ValueError(f"no file {path}. Relative paths start at {Path.cwd()}.")
    rows = read_rows(path)
    if len(rows) < _FEWEST_ROWS:
        raise ValueError(
            f"{path} has {len(rows)} rows of data; a split into training and test rows needs many more. Score it with "
            "--tasks."
        )
    return rows


def _date_column(path: Path, names: Sequence[str], asked: str | None) -> str:
    if asked is None and names[0] == "date":
        return "date"
    if asked in names:
        return str(asked)
    if asked is None and {"item_id", "unique_id"} & set(names):
        raise ValueError(
            f"{path} is a long table (a row a series and time; the columns are {', '.join(names)}), and "
            "this protocol takes a column date and one for each channel. Name its target with --target to score every "
            "window of its series, or score it with --tasks."
        )
    what = f"there is no column {asked!r}" if asked else f"the first column is {names[0]!r}, not 'date'"
    raise ValueError(
        f"{path}: {what}; the columns are {', '.join(names)}. Name the one that holds the time with "
        "--date-column (date_column)."
    )


def _frequency(rows: Rows, name: str) -> str:
    """The frequency of the dates; where they are not regular, the most usual one, and a note says where they are not.

    ValueError where they go back, or stand there twice as those of several series do.
    """
    stamps = read_times(rows, name)
    if not isinstance(stamps, pd.DatetimeIndex):
        raise ValueError(f"{rows.name}: column {name!r} holds numbers, not times; say the season with season_length.")
    times_T = instants(stamps)
    order = np.argsort(times_T, kind="stable")
    twice = np.flatnonzero(np.diff(times_T[order]) == np.timedelta64(0))
    if len(twice) > _MOST_TWICE * len(rows):
        first, second = order[twice[0] : twice[0] + 2]
        both = f"{rows.origin.row(first)} and {rows.origin.row(second)}"
        raise several_series(rows, name, stamps[first], both, order, stamps[order])
    back = np.flatnonzero(np.diff(times_T) < np.timedelta64(0))
    if len(back):
        row = int(back[0]) + 1
        raise ValueError(
            f"{rows.name}: {rows.origin.row(row)} lies before the row above it ({rows.column(name)[row]}). The split "
            "is by rows, so they must be in order of time: sort the file."
        )
    freq = infer_freq(stamps)
    if freq is None:
        freq = usual_freq(np.unique(times_T))
        assert freq is not None, "a table has at least three rows, and few times twice"
        steps_T, _ = count_steps(times_T, np.full_like(times_T, times_T[0]), freq)
        odd = np.flatnonzero(np.diff(steps_T) != 1)
        if len(odd):
            row = int(odd[0]) + 1
            rows.say(
                f"{rows.name}: {len(odd):,} of {len(rows):,} rows are not one step ({freq}) after the row above, the "
                f"first in {rows.origin.row(row)} ({rows.column(name)[row]}). This protocol takes rows as consecutive; "
                "--fill-gaps scores the table in its own units, absent steps as missing values."
            )
    return freq


def _numbers(rows: Rows, name: str) -> np.ndarray:
    """float64 (T,), NaN is missing, and so is what is infinite."""
    remedy = "Correct it, leave it empty, or name the channels to score with --channels (channels)."
    values_T = values.numbers(rows, name, remedy=remedy)
    return np.where(np.isinf(values_T), np.nan, values_T)
