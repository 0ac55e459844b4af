"""The clock of a table: its frequency, whether every series keeps to it, and the time steps that come next.

Axes: T rows of the table (sorted by series, then time), N series, H horizon steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset


@dataclass(frozen=True)
class Timeline:
    """Sorted timestamps of N series: series n has rows `starts[n]:starts[n + 1]`."""

    timestamps_T: pd.DatetimeIndex
    starts: np.ndarray
    name: Callable[[int], str]
    """What sentences call a series."""
    freq: str
    shift_T: np.ndarray | None = None
    """Of months counted from another day than the first: how far each row stands behind the first."""

    @classmethod
    def read(
        cls, timestamps_T: pd.DatetimeIndex, starts: np.ndarray, name: Callable[[int], str], freq: str | None
    ) -> Timeline:
        """Infer the frequency from the longest series and hold every series to it; a `freq` given is trusted.

        ValueError names the first series with a gap or an odd step, and where it is.
        """
        if freq is not None:
            return cls(timestamps_T, starts, name, freq, _month_days(timestamps_T, starts, _checked(freq)))
        longest = int(np.diff(starts).argmax())
        rows = timestamps_T[starts[longest] : starts[longest + 1]]
        if len(rows) < 3:
            raise ValueError(
                f"the frequency cannot be inferred: the longest series, {name(longest)}, has {len(rows)} "
                f'row{"s" * (len(rows) > 1)} and 3 are needed. Say it with freq="D" (or h, W, MS ...), '
                "--freq D on the command line."
            )
        found, shift_T = infer_freq(rows), None
        if found is None:
            shift_T = _month_days(timestamps_T, starts, pd.offsets.MonthBegin())
            mine = slice(starts[longest], starts[longest + 1])
            found = None if shift_T is None else infer_freq(rows.to_numpy() - shift_T[mine])
        if found is None:
            raise _irregular(name(longest), rows)
        timeline = cls(timestamps_T, starts, name, found, shift_T)
        timeline._check()
        return timeline

    def ahead(self, num_steps: int) -> pd.DatetimeIndex:
        """The next `num_steps` time steps of every series, one after the other: N * H timestamps."""
        last_N = self._aligned_T()[self.starts[1:] - 1]
        step = _fixed_step(self.freq)
        steps_H = np.arange(1, num_steps + 1)
        if step is not None:
            clock_N = self._clock(last_N)
            ahead_NH = clock_N[:, None] + steps_H * step
        else:
            offset, multiple = _one_step(self.freq)
            day_N, time_N = _days(last_N, offset)
            grid = pd.date_range(
                offset.rollback(day_N.min()), day_N.max() + (num_steps * multiple + 1) * offset, freq=offset
            )
            place_N = grid.searchsorted(day_N, side="right") - 1
            ahead_NH = grid.to_numpy()[place_N[:, None] + multiple * steps_H] + time_N[:, None]
            if self.shift_T is not None:
                ahead_NH = ahead_NH + self.shift_T[self.starts[1:] - 1][:, None]
        return self._from_clock(ahead_NH.ravel().astype(self._clock(last_N).dtype))

    def _check(self) -> None:
        step = _fixed_step(self.freq)
        if step is not None:
            gaps = np.diff(self._clock(self.timestamps_T))
            regular = gaps == step
        else:
            offset, multiple = _one_step(self.freq)
            days, times = _days(self._aligned_T(), offset)
            grid = pd.date_range(offset.rollback(days.min()), days.max(), freq=offset)
            place = grid.searchsorted(days, side="right") - 1
            on_grid = grid.to_numpy()[place] == days.to_numpy()
            regular = (np.diff(place) == multiple) & (np.diff(times) == np.timedelta64(0)) & on_grid[1:] & on_grid[:-1]
        regular[self.starts[1:-1] - 1] = True  # from one series to the next
        if regular.all():
            return
        row = int(np.flatnonzero(~regular)[0])
        series = int(np.searchsorted(self.starts, row, side="right") - 1)
        raise _gap(self.name(series), self.timestamps_T[row], self.timestamps_T[row + 1], self.freq)

    def _aligned_T(self) -> pd.DatetimeIndex:
        return self.timestamps_T if self.shift_T is None else pd.DatetimeIndex(self.timestamps_T - self.shift_T)

    def _clock(self, timestamps: pd.DatetimeIndex) -> np.ndarray:
        """Without time zone: hours and shorter steps run in UTC, days and longer ones on the wall clock."""
        if timestamps.tz is not None and self._runs_in_utc():
            return timestamps.tz_convert("UTC").tz_localize(None).to_numpy()
        return _wall_clock(timestamps)

    def _from_clock(self, values: np.ndarray) -> pd.DatetimeIndex:
        index, tz = pd.DatetimeIndex(values), self.timestamps_T.tz
        if tz is None:
            return index
        if self._runs_in_utc():
            return index.tz_localize("UTC").tz_convert(tz)
        return index.tz_localize(tz, nonexistent="shift_forward", ambiguous=np.zeros(len(index), dtype=bool))

    def _runs_in_utc(self) -> bool:
        offset = pd.tseries.frequencies.to_offset(self.freq)
        return isinstance(offset, pd.offsets.Tick) and not isinstance(offset, pd.offsets.Day)


def infer_freq(stamps: pd.DatetimeIndex | np.ndarray) -> str | None:
    """The frequency that times in order keep to, as pandas writes it; None for none, and for fewer than 3."""
    if len(stamps) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pandas 3 announces that pandas 4 returns an offset
        found = pd.infer_freq(pd.DatetimeIndex(stamps))
    return getattr(found, "freqstr", found)


def _checked(freq: str) -> BaseOffset:
    """The offset of a frequency that somebody stated."""
    try:
        offset = pd.tseries.frequencies.to_offset(freq)
    except ValueError:
        raise ValueError(f"freq {freq!r} is no pandas frequency; use h, 30min, D, W, MS, QS or the like.") from None
    if offset.n < 1:
        raise ValueError(f"freq {freq!r} does not go forward; use h, 30min, D, W, MS, QS or the like.")
    return offset


def _month_days(stamps_T: pd.DatetimeIndex, starts: np.ndarray, offset: BaseOffset) -> np.ndarray | None:
    """How far each row stands behind the first of its month, where every series keeps one day of it, to the 28th.

    None where all is on the first, on no one day, or months do not count from the first.
    """
    counts_from_first = isinstance(offset, pd.offsets.MonthBegin | pd.offsets.QuarterBegin | pd.offsets.YearBegin)
    if not counts_from_first or stamps_T.tz is not None:
        return None
    day_T = stamps_T.day.to_numpy()
    first_day_T = np.repeat(day_T[starts[:-1]], np.diff(starts))
    if (day_T != first_day_T).any() or (day_T > 28).any() or (day_T == 1).all():
        return None
    return (day_T - 1).astype("timedelta64[D]").astype("timedelta64[s]")


def _fixed_step(freq: str) -> np.timedelta64 | None:
    """The step of a frequency whose steps all last equally long on its clock; None for months, business days ..."""
    offset = pd.tseries.frequencies.to_offset(freq)
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
    offset = pd.tseries.frequencies.to_offset(freq)
    return offset.base, offset.n


def _days(timestamps: pd.DatetimeIndex, offset: BaseOffset) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The dates, and the times of day; of business hours the hours, and no time."""
    wall = timestamps.tz_localize(None) if timestamps.tz is not None else timestamps
    days = wall if isinstance(offset, pd.offsets.BusinessHour) else wall.normalize()
    return days, wall.to_numpy() - days.to_numpy()


def _wall_clock(timestamps: pd.DatetimeIndex) -> np.ndarray:
    return (timestamps.tz_localize(None) if timestamps.tz is not None else timestamps).to_numpy()


def _irregular(name: str, rows: pd.DatetimeIndex) -> ValueError:
    """No frequency fits: point at the first step unlike the usual one, which may be a month or a weekday."""
    gaps = np.diff(_wall_clock(rows))
    days = _wall_clock(rows).astype("datetime64[D]")
    if len(np.unique(rows.time)) == 1:
        months = np.diff((rows.year * 12 + rows.month).to_numpy())
        business = np.busday_count(days[:-1], days[1:])
        is_monthly, is_business = rows.day.nunique() == 1, bool(np.is_busday(days).all())
        for steps, counts, step in ((months, is_monthly, "a month"), (business, is_business, "B, a business day")):
            if counts and np.median(steps) == 1 and (steps != 1).any():
                row = int((steps != 1).argmax())
                return _gap(name, rows[row], rows[row + 1], step)
    lengths, counts = np.unique(gaps, return_counts=True)
    usual = lengths[counts.argmax()]
    row = int(np.flatnonzero(gaps != usual)[0])
    return _gap(name, rows[row], rows[row + 1], str(pd.Timedelta(usual)))


def _gap(name: str, before: pd.Timestamp, after: pd.Timestamp, step: str) -> ValueError:
    return ValueError(
        f"series {name} is not regular: it goes from {before} to {after}, and the step elsewhere is {step}. Add the "
        "missing rows (a target may be empty), take rows out, or give freq= (--freq) to have the rows taken as "
        "consecutive."
    )
