"""The clock of a table: frequencies, regularity, the steps that come next."""

import numpy as np
import pandas as pd
import pytest

from foreloom.data.tables.timeline import Timeline, fill_counted


def read(*series, **said):
    index = series[0].append(list(series[1:]))
    return Timeline.read(index, np.cumsum([0, *map(len, series)]), lambda n: repr(f"s{n}"), **said)


def dates(start, periods, freq, **options):
    return pd.date_range(start, periods=periods, freq=freq, **options)


FREQUENCIES = "h 30min 15min 10s D 2D W-SUN W-WED B MS ME 2MS QS-OCT QE-DEC YS YE"


@pytest.mark.parametrize("freq", FREQUENCIES.split())
def test_goes_on_as_pandas_does_and_infers_it(freq):
    long, short = dates("2021-01-31", 20, freq), dates("2023-02-05", 2, freq)
    if freq in ("2D", "2MS"):
        short = long[2:4]
    timeline = read(long[:15], short)
    expected = [long[15:20], dates(short[-1], 6, freq)[1:]]
    assert timeline.ahead(5).tolist() == [t for steps in expected for t in steps]


def test_weeks_and_days_count_from_each_series_own_last_time():
    timeline = read(dates("2024-01-01 06:00", 4, "W-MON") + pd.Timedelta(hours=6), dates("2024-01-04", 3, "W-THU"))
    assert timeline.ahead(1).tolist() == [pd.Timestamp("2024-01-29 12:00"), pd.Timestamp("2024-01-25")]


def test_a_time_of_day_is_kept_on_calendar_frequencies():
    timeline = read(dates("2024-01-01", 4, "MS") + pd.Timedelta(hours=9))
    assert timeline.ahead(2).tolist() == [pd.Timestamp("2024-05-01 09:00"), pd.Timestamp("2024-06-01 09:00")]


def test_time_zones_days_on_the_wall_hours_in_utc():
    days = dates("2024-03-28", 3, "D", tz="Europe/Berlin")
    assert read(days).ahead(2).tolist() == dates("2024-03-31", 2, "D", tz="Europe/Berlin").tolist()
    hours = dates("2024-03-31 00:00", 3, "h", tz="Europe/Berlin")
    assert read(hours).ahead(2).tolist() == dates("2024-03-31 04:00", 2, "h", tz="Europe/Berlin").tolist()


def test_an_hour_that_comes_twice_is_told_of_the_series_that_has_it():
    wall = pd.to_datetime(["2024-11-02 01:30", "2024-11-03 01:30", "2024-11-03 01:30", "2024-11-04 01:30"])
    twice = wall.tz_localize("America/New_York", ambiguous=np.array([False, True, False, False]))
    with pytest.raises(
        ValueError, match="series 's2' is not on the steps of freq 'D': it goes from 2024-11-03 01:30:00 to 2024-11-03"
    ):
        read(twice[:1], twice[:1], twice, freq="D")


def test_the_unit_of_the_timestamps_stays():
    for unit in ("s", "ms", "us", "ns"):
        index = dates("2024-01-01", 4, "D").as_unit(unit)
        assert read(index).ahead(2).dtype == index.dtype
        months = dates("2024-01-01", 4, "MS").as_unit(unit)
        assert read(months).ahead(2).dtype == months.dtype


GAPPED = "h 15min D 2D W-SUN B MS ME QS-OCT YS"


@pytest.mark.parametrize("freq", GAPPED.split())
def test_absent_steps_are_put_in_and_counted(freq):
    whole = dates("2021-01-31", 40, freq)
    timeline = read(whole[:30], whole.delete([3, 4, 20]), whole[5:7])
    assert timeline.times_T.tolist() == [*whole[:30], *whole, *whole[5:7]]
    assert np.flatnonzero(timeline.row_T < 0).tolist() == [33, 34, 50]
    assert timeline.row_T[timeline.row_T >= 0].tolist() == list(range(69))
    assert timeline.ahead(1).tolist() == [
        whole[30],
        whole[39] + (whole[39] - whole[38] if freq == "D" else whole.freq),
        whole[7],
    ]
    (note,) = timeline.notes
    assert (
        "3 of 72 steps are absent, in 1 of 3 series, and taken as missing values: the first in 's1', from "
        f"{whole[2]} to" in note
    )
    alone = read(whole.delete([3, 4, 20]))
    assert alone.times_T.tolist() == whole.tolist()
    assert (read(whole.delete([3]), freq=freq).times_T == whole).all()
    assert not read(whole).notes


def test_gaps_where_no_frequency_is_plain():
    odd = dates("2024-01-01", 60, "D")[[0, 3, 4, 6, 10, 21, 25, 37, 38, 59]]
    with pytest.raises(
        ValueError,
        match="'s0' is not regular: it goes from 2024-01-01 .* to 2024-01-04 .*--freq D.*--fill-gaps.*--no-fill-gaps",
    ):
        read(odd)
    assert len(read(odd, fill_gaps=True).times_T) == len(read(odd, freq="D").times_T) == 60
    as_is = read(odd, fill_gaps=False)
    assert as_is.times_T.tolist() == odd.tolist() and as_is.freqs_N == [None] and not as_is.notes
    with pytest.raises(ValueError, match="series 's0' is not regular"):
        as_is.ahead(1)
    assert read(odd, freq="D", fill_gaps=False).ahead(1).tolist() == [odd[-1] + pd.Timedelta(days=1)]
    # beside a table of a plain frequency it is a sporadic series of that
    assert len(read(dates("2024-01-01", 90, "D"), odd).times_T) == 150
    with pytest.raises(ValueError, match="at min .* steps are absent beside 10 rows, most of them in series 's0'"):
        read(odd, freq="min")
    with pytest.raises(
        ValueError,
        match="series 's0' is not on the steps of freq 'D': it goes from 2024-01-01 00:00:00 to 2024-01-02 00:07",
    ):
        read(pd.DatetimeIndex(["2024-01-01", "2024-01-02 00:07", "2024-01-03"]), freq="D")


def test_series_may_step_differently():
    days, months = dates("2024-01-01", 30, "D"), dates("2020-01-02", 12, "MS") + pd.Timedelta(days=1)
    timeline = read(days, months)
    assert timeline.freqs_N == ["D", "MS"] and not timeline.notes
    assert timeline.ahead(1).tolist() == [pd.Timestamp("2024-01-31"), pd.Timestamp("2021-02-02")]
    every_other = read(days, days[[1, 3, 5]])  # too few to be taken for a step of its own
    assert every_other.freqs_N == ["D", "D"] and len(every_other.times_T) == 35


def test_steps_that_are_counted_have_gaps_too():
    steps, starts = pd.Index([1, 2, 3, 5, 10, 20, 30, 40]), np.array([0, 4, 8])
    with pytest.raises(ValueError, match="series s0 is not regular: it goes from 1 to 2, and the step elsewhere is 10"):
        fill_counted(steps, starts, "s{}".format, None, None)
    times, starts, row, notes = fill_counted(steps[:4], starts[:2], "s{}".format, None, None)
    assert times.tolist() == [1, 2, 3, 4, 5] and row.tolist() == [0, 1, 2, -1, 3] and "1 of 5 steps" in notes[0]


def test_too_few_rows_ask_for_a_frequency():
    with pytest.raises(ValueError, match=r"longest series, 's0', has 2 rows and 3 are needed. Say it with freq="):
        read(dates("2024-01-01", 2, "D")).ahead(1)
    with pytest.raises(ValueError, match=r"has 1 row and 3 are needed.*--freq D on the command line"):
        read(dates("2024-01-01", 1, "D")).ahead(1)
    assert read(dates("2024-01-01", 1, "D"), freq="D").ahead(1).tolist() == [pd.Timestamp("2024-01-02")]


def test_a_frequency_given_is_trusted():
    holidays = dates("2024-01-01", 20, "B").delete(7)
    assert read(holidays, freq="B").ahead(1).tolist() == [holidays[-1] + pd.offsets.BDay()]
    off = pd.DatetimeIndex(["2024-01-15", "2024-02-20"])
    with pytest.raises(ValueError, match="it goes from 2024-01-15 .* to 2024-02-20 .*--no-fill-gaps"):
        read(off, freq="MS")
    assert read(off, freq="MS", fill_gaps=False).ahead(2).tolist() == [
        pd.Timestamp("2024-03-01"),
        pd.Timestamp("2024-04-01"),
    ]
    with pytest.raises(ValueError, match="freq 'daily' is no pandas frequency"):
        read(holidays, freq="daily")


def test_months_count_from_another_day_than_the_first():
    fifteenth = dates("2024-01-01", 6, "MS") + pd.Timedelta(days=14)
    tenth = dates("2024-03-01", 3, "MS") + pd.Timedelta(days=9)
    expected = [
        pd.Timestamp("2024-07-15"),
        pd.Timestamp("2024-08-15"),
        pd.Timestamp("2024-06-10"),
        pd.Timestamp("2024-07-10"),
    ]
    assert read(fifteenth, tenth).ahead(2).tolist() == expected
    assert read(fifteenth, tenth, freq="MS").ahead(2).tolist() == expected
    with_gap = read(fifteenth.delete(3))
    assert with_gap.times_T.tolist() == fifteenth.tolist() and with_gap.ahead(1).tolist() == expected[:1]


def test_business_hours_go_on_after_the_weekend():
    hours = dates("2024-01-02 09:00", 34, "bh")
    assert read(hours[:30]).ahead(4).tolist() == hours[30:].tolist()
    assert hours[30:].day_name().tolist() == ["Friday", "Friday", "Monday", "Monday"]


def test_a_holiday_among_trading_days_is_a_missing_value():
    trading = dates("2024-01-01", 30, "B")
    timeline = read(trading.delete(14))
    assert timeline.times_T.tolist() == trading.tolist() and timeline.freqs_N == ["B"]
    assert "from 2024-01-18 00:00:00 to 2024-01-22 00:00:00 at B" in timeline.notes[0]
