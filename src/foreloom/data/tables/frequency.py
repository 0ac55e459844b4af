"""Frequencies: told from times, and as a grid that times are counted on.

Axes: T rows (sorted by series, then time), N series, X any times. Times are datetime64 without a zone.
"""

from __future__ import annotations

import re
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset

_DAY = np.timedelta64(1, "D")


def infer_freq(stamps: pd.DatetimeIndex | np.ndarray) -> str | None:
    """The frequency that times in order keep to, as pandas writes it; None for none, and for fewer than 3."""
    if len(stamps) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pandas 3 announces that pandas 4 returns an offset
        found = pd.infer_freq(pd.DatetimeIndex(stamps))
    return getattr(found, "freqstr", found)


def regular_freqs(clock_T: np.ndarray, starts: np.ndarray, shift_N: np.ndarray) -> list[str | None]:
    """The frequency of every series that keeps to one; those that look alike are asked about once."""
    stamps_T = clock_T.astype("datetime64[us]")
    lengths_N = np.diff(starts)
    steps_T = np.append(np.diff(stamps_T), np.timedelta64(0, "us")).astype(np.int64)
    last_T = np.zeros(len(stamps_T), dtype=bool)
    last_T[starts[1:] - 1] = True  # no step of one series
    first_step_N = steps_T[starts[:-1]]
    uneven_T = ~last_T & (steps_T != np.repeat(first_step_N, lengths_N))
    is_even_N = np.add.reduceat(uneven_T, starts[:-1]) == 0
    known: dict[object, str | None] = {}
    freqs: list[str | None] = []
    day = 86_400_000_000
    # Steps of several lengths are those of months and longer, or leave weekends out; others need not be asked about.
    is_weekend_T = (stamps_T.astype(np.int64) // day + 3) % 7 >= 5
    has_weekend_N = np.logical_or.reduceat(is_weekend_T, starts[:-1])
    hopeless_N = ~is_even_N & has_weekend_N & (first_step_N < 28 * day)
    weekday_N = (stamps_T[starts[:-1]].astype(np.int64) // day) % 7
    for n, (begin, end) in enumerate(pairwise(starts)):
        if hopeless_N[n]:
            freqs.append(None)
            continue
        # An even step under 28 days is told by the step and the weekday; a calendar needs the stamps.
        if is_even_N[n] and first_step_N[n] < 28 * day:
            stamps = stamps_T[begin : min(end, begin + 30)]
            key: object = (first_step_N[n], weekday_N[n], min(end - begin, 3))
        else:
            stamps = stamps_T[begin : begin + 30 if is_even_N[n] else end]
            key = stamps.tobytes()
        if key not in known:
            known[key] = infer_freq(stamps)
            if known[key] is None and shift_N[n]:
                known[key] = infer_freq(stamps - shift_N[n])
        freqs.append(known[key])
    return freqs


def usual_freq(stamps: np.ndarray) -> str | None:
    """The frequency whose step is the most usual one of times in order; None for fewer than 3."""
    if len(stamps) < 3:
        return None
    lengths, counts = np.unique(np.diff(stamps), return_counts=True)
    usual = lengths[counts.argmax()]
    days = stamps.astype("datetime64[D]")
    index, num_days = pd.DatetimeIndex(days), usual // _DAY
    if len(np.unique(stamps - days)) > 1 or usual % _DAY:
        return _every(usual)
    month = index[0].month_name()[:3].upper()
    is_last = index.is_month_end.all()
    over_weekends = (np.diff(days) == 3 * _DAY) & (index.day_of_week[:-1] == 4)
    if num_days == 1 and np.is_busday(days).all() and over_weekends.any():
        return "B"
    if num_days == 7:
        return f"W-{index[0].day_name()[:3].upper()}"
    if 28 <= num_days <= 31:
        return "ME" if is_last else "MS"
    if 89 <= num_days <= 92:
        return f"{'QE' if is_last else 'QS'}-{month}"
    if 365 <= num_days <= 366:
        return f"{'YE' if is_last else 'YS'}-{month}"
    return "D" if num_days == 1 else f"{num_days}D"


def _every(step: np.timedelta64) -> str:
    """A step of one length as pandas writes it."""
    offset: Any = pd.Timedelta(step)
    return pd.tseries.frequencies.to_offset(offset).freqstr


def steps_from(start: np.datetime64, num_steps: int, freq: str) -> np.ndarray:
    """The times of a series that states its first one and its frequency; ValueError where that is not a step of it."""
    checked_offset(freq)
    first_X = np.full(max(num_steps, 1), start)
    shift = month_days(first_X[:1], np.array([0, 1])) if counts_from_first(freq) else np.zeros(1, "timedelta64[s]")
    if not count_steps(first_X[:1] - shift, first_X[:1] - shift, freq)[1].all():
        raise ValueError(f"start {start} is not a step of its freq {freq!r}. State the one that its times have.")
    return later(first_X, np.arange(len(first_X)), freq, shift)[:num_steps]


def count_steps(clock_T: np.ndarray, first_T: np.ndarray, freq: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps from `first_T` to each time, and whether it lies on that step."""
    step = _fixed_step(freq)
    if step is not None:
        return (clock_T - first_T) // step, (clock_T - first_T) % step == np.timedelta64(0)
    offset, multiple = _one_step(freq)
    (day_T, time_T), (first_day_T, first_time_T) = _days(clock_T, offset), _days(first_T, offset)
    grid = pd.date_range(offset.rollback(min(first_day_T.min(), day_T.min())), day_T.max(), freq=offset)
    place_T, first_place_T = (grid.searchsorted(days, side="right") - 1 for days in (day_T, first_day_T))
    on_day_T = (grid[place_T] == day_T) & (grid[first_place_T] == first_day_T) & (time_T == first_time_T)
    count_T = place_T - first_place_T
    return count_T // multiple, np.asarray(on_day_T & (count_T % multiple == 0))


def later(clock_X: np.ndarray, count_X: np.ndarray, freq: str, shift_X: np.ndarray) -> np.ndarray:
    """The times so many steps after others."""
    step = _fixed_step(freq)
    if step is not None:
        return clock_X + count_X * step
    offset, multiple = _one_step(freq)
    day_X, time_X = _days(clock_X - shift_X, offset)
    end = day_X.max() + (int(count_X.max()) * multiple + 1) * offset
    grid = pd.date_range(offset.rollback(day_X.min()), end, freq=offset)
    place_X = grid.searchsorted(day_X, side="right") - 1
    return (grid.to_numpy()[place_X + multiple * count_X] + time_X + shift_X).astype(clock_X.dtype)


_OLD_TICKS = {"H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns"}
_OLD_ENDS = {"M": ("MS", "ME"), "Q": ("QS", "QE"), "A": ("YS", "YE"), "Y": ("YS", "YE"), "BM": ("BMS", "BME")}
"""Names that pandas has given up: of equal steps, and of ends, where data sets that state them may mean beginnings."""


def checked_offset(freq: str) -> BaseOffset:
    """The offset of a frequency that somebody stated, in the old or the new spelling."""
    multiple, name, anchor = re.fullmatch(r"(-?\d*)([A-Za-z]*)(.*)", freq, re.DOTALL).groups()  # type: ignore[union-attr]
    if name in _OLD_ENDS:
        first, last = (f"{multiple}{one}{anchor}" for one in _OLD_ENDS[name])
        raise ValueError(f"freq {freq!r} is an old name; say {first} for the first day of each or {last} for the last.")
    try:
        offset = pd.tseries.frequencies.to_offset(f"{multiple}{_OLD_TICKS.get(name, name)}{anchor}")
    except ValueError:
        raise ValueError(f"freq {freq!r} is no pandas frequency; use h, 30min, D, W, MS, QS or the like.") from None
    if offset.n < 1:
        raise ValueError(f"freq {freq!r} does not go forward; use h, 30min, D, W, MS, QS or the like.")
    return offset


def counts_from_first(freq: str | None) -> bool:
    """Months, quarters and years counted from the first of a month?"""
    offset = None if freq is None else checked_offset(freq)
    return isinstance(offset, pd.offsets.MonthBegin | pd.offsets.QuarterBegin | pd.offsets.YearBegin)


def is_below_a_day(offset: BaseOffset) -> bool:
    return isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day)


def month_days(clock_T: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """How far the rows of each series stand behind the first of their month, where they keep one day to the 28th; else
    0 (N,)."""
    days_T = clock_T.astype("datetime64[D]")
    day_T = (days_T - clock_T.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64)
    first_day_N = day_T[starts[:-1]]
    keeps_N = np.logical_and.reduceat(day_T == np.repeat(first_day_N, np.diff(starts)), starts[:-1])
    return np.where(keeps_N & (first_day_N < 28), first_day_N, 0).astype("timedelta64[D]").astype("timedelta64[s]")


def _fixed_step(freq: str) -> np.timedelta64 | None:
    """The step of a frequency whose steps all last equally long on its clock; None for months, business days ..."""
    offset = checked_offset(freq)
    if isinstance(offset, pd.offsets.Day):  # a Tick in pandas 2, not in pandas 3
        return np.timedelta64(offset.n, "D")
    if isinstance(offset, pd.offsets.Week):
        return np.timedelta64(7 * offset.n, "D")
    if isinstance(offset, pd.offsets.Tick):
        seconds, rest = divmod(offset.nanos, 10**9)
        return np.timedelta64(offset.nanos, "ns") if rest else np.timedelta64(seconds, "s")
    return None


def _one_step(freq: str) -> tuple[BaseOffset, int]:
    """A calendar frequency as its offset and the multiple of it: 2MS is (MS, 2)."""
    offset = checked_offset(freq)
    return offset.base, offset.n


def _days(clock: np.ndarray, offset: BaseOffset) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The dates, and the times of day; of business hours the hours, and no time."""
    index = pd.DatetimeIndex(clock)
    days = index if isinstance(offset, pd.offsets.BusinessHour) else index.normalize()
    return days, index.to_numpy() - days.to_numpy()
