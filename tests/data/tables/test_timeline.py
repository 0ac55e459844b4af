"""The clock of a table: frequencies, regularity, the steps that come next."""

import numpy as np
import pandas as pd
import pytest

from foreloom.data.tables.timeline import Timeline


def read(*series, freq=None):
    index = series[0].append(list(series[1:]))
    return Timeline.read(index, np.cumsum([0, *map(len, series)]), lambda n: repr(f"s{n}"), freq)


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


def test_the_unit_of_the_timestamps_stays():
    for unit in ("s", "ms", "us", "ns"):
        index = dates("2024-01-01", 4, "D").as_unit(unit)
        assert read(index).ahead(2).dtype == index.dtype
        months = dates("2024-01-01", 4, "MS").as_unit(unit)
        assert read(months).ahead(2).dtype == months.dtype


def test_a_gap_is_named():
    gap = dates("2024-01-01", 9, "D").delete(5)
    with pytest.raises(
        ValueError, match=r"series 's1' is not regular: .* 2024-01-05 .* 2024-01-07 .* step elsewhere is D"
    ):
        read(dates("2024-01-01", 30, "D"), gap)
    with pytest.raises(ValueError, match=r"series 's0' is not regular: .* 2024-01-05 .* 2024-01-07"):
        read(gap)


def test_a_series_off_the_calendar_is_named():
    with pytest.raises(ValueError, match="series 's1' is not regular"):
        read(dates("2020-01-01", 30, "MS"), dates("2020-01-02", 3, "MS") + pd.Timedelta(days=1))
    with pytest.raises(ValueError, match="series 's1' is not regular"):
        read(dates("2020-01-01", 30, "MS"), dates("2020-01-01", 3, "2MS"))


def test_too_few_rows_ask_for_a_frequency():
    with pytest.raises(ValueError, match=r"longest series, 's0', has 2 rows and 3 are needed. Say it with freq="):
        read(dates("2024-01-01", 2, "D"))
    with pytest.raises(ValueError, match=r"has 1 row and 3 are needed.*--freq D on the command line"):
        read(dates("2024-01-01", 1, "D"))
    assert read(dates("2024-01-01", 1, "D"), freq="D").ahead(1).tolist() == [pd.Timestamp("2024-01-02")]


def test_a_frequency_given_is_trusted():
    holidays = dates("2024-01-01", 20, "B").delete(7)
    assert read(holidays, freq="B").ahead(1).tolist() == [holidays[-1] + pd.offsets.BDay()]
    off = pd.DatetimeIndex(["2024-01-15", "2024-02-20"])
    assert read(off, freq="MS").ahead(2).tolist() == [pd.Timestamp("2024-03-01"), pd.Timestamp("2024-04-01")]
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
    with pytest.raises(
        ValueError, match="series 's0' is not regular: it goes from 2024-03-15 .* to 2024-05-15 .* elsewhere is a month"
    ):
        read(fifteenth.delete(3))


def test_business_hours_go_on_after_the_weekend():
    hours = dates("2024-01-02 09:00", 34, "bh")
    assert read(hours[:30]).ahead(4).tolist() == hours[30:].tolist()
    assert hours[30:].day_name().tolist() == ["Friday", "Friday", "Monday", "Monday"]


def test_a_holiday_is_named_where_it_is():
    trading = dates("2024-01-01", 30, "B").delete(14)
    with pytest.raises(ValueError, match=r"goes from 2024-01-18 .* to 2024-01-22 .*, and the step elsewhere is B"):
        read(trading)
