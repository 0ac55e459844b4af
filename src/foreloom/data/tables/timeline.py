"""The clock of a table: the frequency of every series, the steps that are absent, and those that come next.

Axes: T rows (sorted by series, then time), N series, H horizon steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from foreloom.data.tables.frequency import (
    checked_offset,
    count_steps,
    counts_from_first,
    is_below_a_day,
    later,
    month_days,
    regular_freqs,
    usual_freq,
)

_ENOUGH_ROWS = 10
"""From so many on a series of its own step is believed, though it might be one of the table's with absent steps."""
_MOST_FILLED = 10
"""Absent steps that a stated frequency may mean, for each row there is."""
_REMEDY = (
    "Say the step with freq (--freq D), have absent steps taken as missing values with fill_gaps (--fill-gaps), or the "
    "rows as consecutive with fill_gaps=False (--no-fill-gaps)."
)


@dataclass(frozen=True)
class Timeline:
    """Sorted times of N series, absent steps put in: series n has places `starts[n]:starts[n + 1]`."""

    times_T: pd.DatetimeIndex
    starts: np.ndarray
    row_T: np.ndarray
    """Which of the times handed in stands at each place, -1 for an absent one."""
    freqs_N: Sequence[str | None]
    """None where nothing tells it: fewer than 3 rows, or rows that are no steps of a frequency and are to stay so."""
    name: Callable[[int], str]
    """What sentences call a series."""
    shift_N: np.ndarray
    """Of months counted from another day than the first: how far the rows stand behind the first, timedelta64."""
    notes: tuple[str, ...] = ()
    """What was filled in, with numbers."""

    @classmethod
    def read(
        cls,
        times_T: pd.DatetimeIndex,
        starts: np.ndarray,
        name: Callable[[int], str],
        freq: str | Sequence[str | None] | None = None,
        fill_gaps: bool | None = None,
    ) -> Timeline:
        """Tell the frequency of each series (a `freq` given is that of all, or of each; None is told) and put absent
        steps in.

        Absent steps are those of a frequency that is plain: it is stated, or most steps of the series are one of it,
        or it is that of most of the table, and no more than half is absent. `fill_gaps` True asks less, False leaves
        rows as they are. ValueError names the first series with an odd step, and where it is.
        """
        stated_N = [freq] * (len(starts) - 1) if freq is None or isinstance(freq, str) else list(freq)
        stated = {one: checked_offset(one) for one in dict.fromkeys(stated_N) if one is not None}
        on_wall = not any(map(is_below_a_day, stated.values())) if stated else keeps_to_the_wall(times_T)
        clock_T = _clock(times_T, on_wall)
        shift_N = month_days(clock_T, starts)
        freqs_N = _told_or_stated(stated_N, clock_T, starts, shift_N, name, fill_gaps)
        shift_N = np.where([counts_from_first(one) for one in freqs_N], shift_N, np.timedelta64(0, "s"))
        lengths_N = np.diff(starts)
        row_T = np.arange(len(clock_T))
        as_read = cls(times_T, starts, row_T, freqs_N, name, shift_N)
        if fill_gaps is False:
            return as_read
        count_T = _counts(clock_T, starts, freqs_N, shift_N, name)
        full_N = np.where(lengths_N > 0, count_T[starts[1:] - 1] + 1, 0)
        if (full_N == lengths_N).all():
            return as_read
        if fill_gaps is None and full_N.sum() > (_MOST_FILLED + 1) * len(times_T):
            n = int((full_N / lengths_N).argmax())
            raise ValueError(
                f"at {freqs_N[n]} {full_N.sum() - len(times_T):,} steps are absent beside {len(times_T):,} rows, most "
                f"of them in series {name(n)}. {_REMEDY}"
            )
        return as_read._filled(clock_T, on_wall, count_T, full_N)

    def _filled(self, clock_T: np.ndarray, on_wall: bool, count_T: np.ndarray, full_N: np.ndarray) -> Timeline:
        """With the absent steps put in: series n has `full_N[n]`, its rows stand `count_T` steps after its first."""
        full_starts = np.concatenate([[0], np.cumsum(full_N)])
        row_T = np.full(full_starts[-1], -1)
        row_T[np.repeat(full_starts[:-1], np.diff(self.starts)) + count_T] = np.arange(len(count_T))
        step_T = np.arange(len(row_T)) - np.repeat(full_starts[:-1], full_N)
        series_T = np.repeat(np.arange(len(full_N)), full_N)
        first_T = clock_T[self.starts[:-1]][series_T]
        full_T = clock_T[np.maximum(row_T, 0)]
        for freq in dict.fromkeys(self.freqs_N):
            absent = (row_T < 0) & np.array([one == freq for one in self.freqs_N])[series_T]
            if absent.any():
                assert freq is not None
                full_T[absent] = later(first_T[absent], step_T[absent], freq, self.shift_N[series_T[absent]])
        has_gaps_N = full_N > np.diff(self.starts)
        n = int(has_gaps_N.argmax())
        gap = self.starts[n] + int((np.diff(count_T[self.starts[n] : self.starts[n + 1]]) > 1).argmax())
        note = (
            f"{(row_T < 0).sum():,} of {len(row_T):,} steps are absent, in {has_gaps_N.sum():,} of {len(full_N):,} "
            f"series, and taken as missing values: the first in {self.name(n)}, from {self.times_T[gap]} to "
            f"{self.times_T[gap + 1]} at {self.freqs_N[n]}. --no-fill-gaps (fill_gaps=False) takes rows as consecutive."
        )
        times_T = from_clock(full_T, self.times_T.tz, on_wall).as_unit(self.times_T.unit)
        return Timeline(times_T, full_starts, row_T, self.freqs_N, self.name, self.shift_N, (note,))

    def ahead(self, num_steps: int) -> pd.DatetimeIndex:
        """The next `num_steps` time steps of every series, one after the other: N * H times.

        ValueError for a series whose frequency nothing tells.
        """
        if None in self.freqs_N:
            raise self._untold(self.freqs_N.index(None))
        last_N = self.times_T[self.starts[1:] - 1]
        step_H = np.arange(1, num_steps + 1)
        utc_NH = np.empty((len(last_N), num_steps), f"datetime64[{self.times_T.unit}]")
        for freq in dict.fromkeys(self.freqs_N):
            assert freq is not None
            mine = np.array([one == freq for one in self.freqs_N])
            on_wall = not is_below_a_day(checked_offset(freq))
            last_X, step_X = (x.ravel() for x in np.broadcast_arrays(_clock(last_N[mine], on_wall)[:, None], step_H))
            later_X = later(last_X, step_X, freq, np.repeat(self.shift_N[mine], num_steps))
            utc_NH[mine] = _clock(from_clock(later_X, self.times_T.tz, on_wall), False).reshape(-1, num_steps)
        return from_clock(utc_NH.ravel(), self.times_T.tz, on_wall=False)

    def _untold(self, n: int) -> ValueError:
        rows = self.times_T[self.starts[n] : self.starts[n + 1]]
        if len(rows) > 2:
            return _irregular(self.name(n), rows)
        return ValueError(
            f"the frequency cannot be inferred: the longest series, {self.name(n)}, has {len(rows)} "
            f'row{"s" * (len(rows) > 1)} and 3 are needed. Say it with freq="D" (or h, W, MS ...), --freq D on the '
            "command line."
        )


def _told_or_stated(
    stated_N: Sequence[str | None],
    clock_T: np.ndarray,
    starts: np.ndarray,
    shift_N: np.ndarray,
    name: Callable[[int], str],
    fill_gaps: bool | None,
) -> list[str | None]:
    """The frequency of each series: as it is stated, else told from the times of those that state none."""
    asked = np.flatnonzero([one is None for one in stated_N])
    if not len(asked):
        return list(stated_N)
    lengths_N = np.diff(starts)
    mine_T = np.repeat(np.isin(np.arange(len(stated_N)), asked), lengths_N)
    own_starts = np.concatenate([[0], np.cumsum(lengths_N[asked])])
    told = _Told(clock_T[mine_T], own_starts, shift_N[asked], lambda n: name(int(asked[n])), fill_gaps).freqs()
    freqs_N = list(stated_N)
    for n, one in zip(asked.tolist(), told, strict=True):
        freqs_N[n] = one
    return freqs_N


@dataclass(frozen=True)
class _Told:
    """The frequencies of series, told from their times."""

    clock_T: np.ndarray
    starts: np.ndarray
    shift_N: np.ndarray
    name: Callable[[int], str]
    fill_gaps: bool | None

    def freqs(self) -> list[str | None]:
        """ValueError for the first series that no frequency fits, unless rows are to stay as they are."""
        own_N = regular_freqs(self.clock_T, self.starts, self.shift_N)
        main = self._main(own_N)
        as_main = [own is not None and main is not None and _base(own) == _base(main) for own in own_N]
        if all(as_main) or self.fill_gaps is False:
            return [own or (main if self._length(n) < 3 else None) for n, own in enumerate(own_N)]
        full_N = self._on_main(main, ~np.array(as_main))
        return [
            own if alike else self._freq(n, own, main, full)
            for n, (own, alike, full) in enumerate(zip(own_N, as_main, full_N.tolist(), strict=True))
        ]

    def _on_main(self, main: str | None, asked_N: np.ndarray) -> np.ndarray:
        """How many steps of `main` each series that is asked about spans, int64 (N,); 0 where a row is on no step."""
        full_N = np.zeros(len(asked_N), np.int64)
        if main is None:
            return full_N
        lengths_N = np.diff(self.starts)
        mine_T = np.repeat(asked_N, lengths_N)
        shift_N = self.shift_N if counts_from_first(main) else np.zeros(len(asked_N), "timedelta64[s]")
        stamps_X = (self.clock_T - np.repeat(shift_N, lengths_N))[mine_T]
        ends = np.cumsum(lengths_N[asked_N])
        begins = ends - lengths_N[asked_N]
        count_X, is_on_X = count_steps(stamps_X, np.repeat(stamps_X[begins], lengths_N[asked_N]), main)
        full_N[asked_N] = np.where(np.logical_and.reduceat(is_on_X, begins), count_X[ends - 1] + 1, 0)
        return full_N

    def _main(self, own_N: Sequence[str | None]) -> str | None:
        """That of most rows; where no series is regular, the longest one's."""
        rows_of: Counter[str] = Counter()
        for n, own in enumerate(own_N):
            if own is not None:
                rows_of[own] += self._length(n)
        if rows_of:
            return rows_of.most_common(1)[0][0]
        longest = int(np.diff(self.starts).argmax())
        return self._usual(longest)

    def _freq(self, n: int, own: str | None, main: str | None, full: int) -> str | None:
        """Of a series that is not like the most: `full` steps of `main`, 0 where it is not on them."""
        half_is_there = 0 < full <= 2 * self._length(n)
        if own is not None and (self._length(n) >= _ENOUGH_ROWS or not half_is_there):
            return own
        if half_is_there or self._length(n) < 3:
            return main
        if (usual := self._usual(n)) is not None:
            return usual
        if full:  # a sporadic one in a table of a plain frequency
            return main
        raise _irregular(self.name(n), pd.DatetimeIndex(self._stamps(n)))

    def _usual(self, n: int) -> str | None:
        """The frequency of the most usual step, where that is plain: most steps are one of it, half of all is there."""
        usual = usual_freq(self._stamps(n))
        steps = None if usual is None else self._steps(n, usual)
        if steps is None:
            return None
        is_plain = 2 * (steps == 1).sum() >= len(steps) and steps.sum() + 1 <= 2 * self._length(n)
        return usual if is_plain or self.fill_gaps else None

    def _steps(self, n: int, freq: str) -> np.ndarray | None:
        """How many steps of a frequency lie between the rows of a series; None where a row is on no step."""
        stamps = self._stamps(n) - (self.shift_N[n] if counts_from_first(freq) else np.timedelta64(0, "s"))
        count, is_on = count_steps(stamps, stamps[:1].repeat(len(stamps)), freq)
        return np.diff(count) if is_on.all() else None

    def _length(self, n: int) -> int:
        return int(self.starts[n + 1] - self.starts[n])

    def _stamps(self, n: int) -> np.ndarray:
        return self.clock_T[self.starts[n] : self.starts[n + 1]]


def fill_counted(
    step_T: pd.Index, starts: np.ndarray, name: Callable[[int], str], freq: str | None, fill_gaps: bool | None
) -> tuple[pd.Index, np.ndarray, np.ndarray, tuple[str, ...]]:
    """The same where whole numbers count the steps: times, starts, rows (-1 is absent) and notes, as in `Timeline`."""
    if freq is not None:
        raise ValueError(f"freq {freq!r} has no effect where the times are numbers that count steps; leave it out.")
    values_T = step_T.to_numpy()
    gaps = np.diff(values_T)
    gaps[starts[1:-1] - 1] = 0
    inner = gaps[gaps > 0]
    if fill_gaps is False or not len(inner):
        return step_T, starts, np.arange(len(values_T)), ()
    lengths, counts = np.unique(inner, return_counts=True)
    usual = lengths[counts.argmax()]
    count_T = values_T - np.repeat(values_T[starts[:-1]], np.diff(starts))
    full_N = count_T[starts[1:] - 1] // usual + 1
    is_plain = fill_gaps or (2 * counts.max() >= len(inner) and full_N.sum() <= 2 * len(values_T))
    if (inner % usual).any() or not is_plain:
        row = int(np.flatnonzero((gaps > 0) & (gaps != usual))[0])
        n = int(np.searchsorted(starts, row, side="right")) - 1
        raise ValueError(
            f"series {name(n)} is not regular: it goes from {values_T[row]} to {values_T[row + 1]}, and the step "
            f"elsewhere is {usual}. Have absent steps taken as missing values with fill_gaps (--fill-gaps), or the "
            "rows as consecutive with fill_gaps=False (--no-fill-gaps)."
        )
    if full_N.sum() == len(values_T):
        return step_T, starts, np.arange(len(values_T)), ()
    full_starts = np.concatenate([[0], np.cumsum(full_N)])
    row_T = np.full(full_starts[-1], -1)
    row_T[np.repeat(full_starts[:-1], np.diff(starts)) + count_T // usual] = np.arange(len(values_T))
    step_of_T = np.arange(len(row_T)) - np.repeat(full_starts[:-1], full_N)
    note = f"{(row_T < 0).sum():,} of {len(row_T):,} steps are absent, and taken as missing values."
    return pd.Index(np.repeat(values_T[starts[:-1]], full_N) + step_of_T * usual), full_starts, row_T, (note,)


def _counts(
    clock_T: np.ndarray,
    starts: np.ndarray,
    freqs_N: Sequence[str | None],
    shift_N: np.ndarray,
    name: Callable[[int], str],
) -> np.ndarray:
    """How many steps each row lies after its series' first (T,), int64; rows where nothing tells the frequency are
    taken as consecutive. ValueError for a row that is on no step."""
    series_T = np.repeat(np.arange(len(freqs_N)), np.diff(starts))
    aligned_T = clock_T - shift_N[series_T]
    count_T = np.arange(len(clock_T)) - starts[:-1][series_T]
    first_T = aligned_T[starts[:-1]][series_T]
    for freq in dict.fromkeys(freqs_N):
        if freq is None:
            continue
        mine = np.flatnonzero(np.array([one == freq for one in freqs_N])[series_T])
        count_X, is_on_X = count_steps(aligned_T[mine], first_T[mine], freq)
        count_T[mine] = count_X
        # Two times on one step: the hour that a clock set back has twice.
        stays_X = (np.diff(count_X, prepend=-1) < 1) & (np.diff(series_T[mine], prepend=-1) == 0)
        if (wrong_X := ~is_on_X | stays_X).any():
            row = int(mine[wrong_X][0])
            n = int(series_T[row])
            before = clock_T[row - 1] if row > starts[n] else clock_T[row]
            after = clock_T[row] if row > starts[n] else clock_T[row + 1]
            mine_T = clock_T[starts[n] : starts[n + 1]]
            (regular,) = regular_freqs(
                mine_T, np.array([0, len(mine_T)]), month_days(mine_T, np.array([0, len(mine_T)]))
            )
            raise _off_steps(name(n), pd.Timestamp(before), pd.Timestamp(after), freq, regular)
    return count_T


def clock_of(times: pd.DatetimeIndex) -> np.ndarray:
    """datetime64 without a zone: on the wall where times keep their time of day there, else in UTC."""
    return _clock(times, keeps_to_the_wall(times))


def _clock(times: pd.DatetimeIndex, on_wall: bool) -> np.ndarray:
    """Without a zone: days and longer steps run on the wall clock, shorter ones in UTC."""
    if times.tz is None:
        return times.to_numpy()
    return (times.tz_localize(None) if on_wall else times.tz_convert(None)).to_numpy()


def from_clock(clock: np.ndarray, tz: Any, on_wall: bool) -> pd.DatetimeIndex:
    """Times with their zone again; an hour that a clock has twice is its second."""
    index = pd.DatetimeIndex(clock)
    if tz is None:
        return index
    if not on_wall:
        return index.tz_localize("UTC").tz_convert(tz)
    return index.tz_localize(tz, nonexistent="shift_forward", ambiguous=np.zeros(len(index), dtype=bool))


def keeps_to_the_wall(times: pd.DatetimeIndex) -> bool:
    """Do times with a zone keep their time of day on its clocks, so that they are days of there?"""
    if times.tz is None:
        return True
    wall = times.tz_localize(None)
    return (wall - wall.normalize()).nunique() == 1


def _base(freq: str) -> str:
    """W of W-MON: series of a table may count from days of their own."""
    return freq.split("-")[0]


def _irregular(name: str, rows: pd.DatetimeIndex) -> ValueError:
    """No frequency fits: point at the first step unlike the usual one, which may be a month or a weekday."""
    clock = _clock(rows, on_wall=True)
    gaps, days = np.diff(clock), clock.astype("datetime64[D]")
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


def _off_steps(name: str, before: pd.Timestamp, after: pd.Timestamp, freq: str, regular: str | None) -> ValueError:
    """A frequency is said, or told from most rows, and a row stands between its steps."""
    other = f" Its rows look like freq={regular!r}." if regular and _base(regular) != _base(freq) else ""
    return ValueError(
        f"series {name} is not on the steps of freq {freq!r}: it goes from {before} to {after}.{other} State another "
        f"freq (--freq), bring the rows onto its steps beforehand (pandas: resample({freq!r}) and a sum or mean), or "
        "take them as consecutive with fill_gaps=False (--no-fill-gaps)."
    )


def _gap(name: str, before: pd.Timestamp, after: pd.Timestamp, step: str) -> ValueError:
    return ValueError(
        f"series {name} is not regular: it goes from {before} to {after}, and the step elsewhere is {step}. {_REMEDY}"
    )
