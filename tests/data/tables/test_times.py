"""A column of times has one reading: what is recognised, what is said, what is refused, and how fast."""

from __future__ import annotations

import datetime
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from foreloom.data.tables.frequency import checked_offset, counts_from_first, steps_from
from foreloom.data.tables.read import TableOptions, rows_of
from foreloom.data.tables.times import read_times


def read(cells, **options):
    rows = rows_of(pd.DataFrame({"t": cells}), "df", TableOptions(**options))
    return read_times(rows, "t"), rows.notes


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["2024-01-31", "2024-02-01 10:00", "2024-02-01T11"], ["2024-01-31", "2024-02-01T10", "2024-02-01T11"]),
        (["01/01/2024", "12/01/2024", "13/01/2024"], ["2024-01-01", "2024-01-12", "2024-01-13"]),
        (["01/01/2024", "01/13/2024", "02/01/2024"], ["2024-01-01", "2024-01-13", "2024-02-01"]),
        (["05-02-2010", "12-02-2010", "19-02-2010"], ["2010-02-05", "2010-02-12", "2010-02-19"]),
        (["1/2/2024", "13/2/2024 10:30"], ["2024-02-01", "2024-02-13T10:30"]),
        (["2024/1/31 01:05", "2024/2/1 13:05"], ["2024-01-31T01:05", "2024-02-01T13:05"]),
        (["Jan-15", "May-15", "Dec-15"], ["2015-01-01", "2015-05-01", "2015-12-01"]),
        (["May-15"], ["2015-05-01"]),
        (["05JAN2024", "06JUN2024"], ["2024-01-05", "2024-06-06"]),
        (["January 5, 2024", "June 6, 2024"], ["2024-01-05", "2024-06-06"]),
        (["Mon 5 Feb 2024 10:00", "Tue 6 Feb 2024 10:00"], ["2024-02-05T10", "2024-02-06T10"]),
        (["1/13/2024 12:00 AM", "1/14/2024 1 PM", "1/15/2024 11:59:30 PM"],
         ["2024-01-13", "2024-01-14T13", "2024-01-15T23:59:30"]),
        (["13/01/2024 10:00+02:00", "14/01/2024 10:00+02:00"], ["2024-01-13T08", "2024-01-14T08"]),
        ([datetime.date(2024, 1, 31)], ["2024-01-31"]),
        (pd.period_range("2024-01", periods=2, freq="M"), ["2024-01-01", "2024-02-01"]),
        ([1950, 1951], ["1950-01-01", "1951-01-01"]),
        (["1950", "1951"], ["1950-01-01", "1951-01-01"]),
        ([1950.0, 1951.0], ["1950-01-01", "1951-01-01"]),
        ([202401, 202402], ["2024-01-01", "2024-02-01"]),
        ([20240131, 20240201], ["2024-01-31", "2024-02-01"]),
        ([1706659200, 1706745600], ["2024-01-31", "2024-02-01"]),
        ([1706659200000, 1706745600000], ["2024-01-31", "2024-02-01"]),
        ([1706659200000000], ["2024-01-31"]),
        ([1706659200000000001], ["2024-01-31T00:00:00.000000001"]),
    ],
)  # fmt: skip
def test_what_is_recognised(cells, expected):
    times, _ = read(cells)
    times = times if times.tz is None else times.tz_convert(None)
    assert times.to_numpy().astype("datetime64[ns]").tolist() == np.array(expected, "datetime64[ns]").tolist()


@pytest.mark.parametrize(
    ("cells", "option", "other"),
    [
        (["01/02/2024", "01/03/2024"], "%m/%d/%Y", '--date-format "%d/%m/%Y"'),
        (["01.02.2024", "01.03.2024"], "%d.%m.%Y", '--date-format "%m.%d.%Y"'),
    ],
)
def test_two_readings_are_said_with_the_option_that_settles_it(cells, option, other):
    times, notes = read(cells)
    assert len(notes) == 1
    assert "can be read in two ways ('01" in notes[0]
    assert f"it is read as {option}" in notes[0]
    assert other in notes[0]
    stated, silent = read(cells, date_format=option)
    assert stated.tolist() == times.tolist()
    assert not silent
    assert read(cells, date_format=other[15:-1])[0].tolist() != times.tolist()


def test_both_readings_of_the_same_day_are_not_two():
    assert read(["01/01/2024", "02/02/2024"])[1] == []


@pytest.mark.parametrize(
    ("cells", "word"),
    [
        ([1950, 1951], "years"),
        ([20240131, 20240201], "year, month and day"),
        ([1706659200, 1706745600], "seconds since"),
    ],
)
def test_numbers_that_are_read_as_times_are_said(cells, word):
    (note,) = read(cells)[1]
    assert note == f"df: column 't' holds whole numbers such as {cells[0]}: they are read as {note.split(' as ')[-1]}"
    assert word in note


def test_other_whole_numbers_count_steps():
    times, notes = read([3, 1, 2])
    assert times.dtype == np.int64
    assert times.tolist() == [3, 1, 2]
    assert not notes


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["2024-01-01", "soon"], "df: column 't' holds 'soon' in row 1, which is not a time"),
        (["13/01/2024", "14/01/2024", "15/14/2024"], "'15/14/2024' in row 2, which is not a time of the form %d/%m/%Y"),
        (["01/01/2024 25:00"], "holds '01/01/2024 25:00' in row 0, which is not a time"),
        (["2024-01-01", None], "column 't' is empty in row 1. Fill it in, or drop the row"),
        (["2024-03-30T00:00:00", "2024-03-30T01:00:00Z"], "'2024-03-30T01:00:00Z' in row 1: some times state a UTC"),
        (["2024-W01", "2024-W02"], "'2024-W01' in row 0, which is not a time. Write times as .*, weeks and"),
        ([0.5, 1.5], "column 't' holds numbers, not times"),
        ([pd.Timedelta("1h")], "column 't' holds durations, not times"),
        ([datetime.time(10)], "column 't' holds clock times, not times"),
        ([[1, 2]], "column 't' holds lists, not times"),
        ([{"a": 1}], "column 't' holds structs, not times"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_its_row(cells, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(cells)


def test_a_format_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"'10/13/2024' in row 1, which is not a time of the form %d/%m/%Y"):
        read(["10/12/2024", "10/13/2024"], date_format="%d/%m/%Y")


def test_local_midnight_over_a_clock_change_is_read_on_the_wall():
    stamps = pd.date_range("2024-03-29", periods=4, freq="D", tz="Europe/Berlin")
    times, (note,) = read([stamp.isoformat() for stamp in stamps])
    assert times.tolist() == stamps.tz_localize(None).tolist()
    assert "several UTC offsets (+01:00, +02:00)" in note
    hours = pd.date_range("2024-03-31", periods=4, freq="h", tz="Europe/Berlin")
    times, notes = read([stamp.isoformat() for stamp in hours])
    assert times.tolist() == hours.tz_convert("UTC").tolist()
    assert not notes


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_unit_of_times_stays(unit):
    assert read(pd.date_range("2024-01-01", periods=3).as_unit(unit))[0].unit == unit


def test_periods_are_told_by_their_type_or_by_their_metadata():
    periods = pd.Series(pd.period_range("2015-01", periods=3, freq="M"))
    field = pa.field(
        "t", pa.int64(), metadata={"ARROW:extension:name": "pandas.period", "ARROW:extension:metadata": '{"freq": "M"}'}
    )
    table = pa.table([pa.array(periods.array.asi8)], schema=pa.schema([field]))
    for frame in (periods.to_frame("t"), table):
        assert read_times(rows_of(frame, "df"), "t").tolist() == list(pd.date_range("2015-01-01", periods=3, freq="MS"))


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d %b %Y %H:%M"])
def test_a_long_column_is_not_read_cell_by_cell(form):
    stamps = pd.date_range("1990-01-01", periods=100_000, freq="h")
    rows = rows_of(pd.DataFrame({"t": stamps.strftime(form)}), "df")
    begin = time.process_time()
    assert (read_times(rows, "t") == stamps).all()
    assert time.process_time() - begin < 3  # 0.6 s; cell by cell 15


def test_of_two_readings_the_regular_one_is_taken_and_said():
    hours = pd.date_range("2024-01-01", periods=120, freq="h")
    times, (note,) = read(hours.strftime("%d/%m/%Y %H:%M"))
    assert times.tolist() == hours.tolist()
    assert "read as %d/%m/%Y" in note
    months = pd.date_range("2024-01-01", periods=12, freq="MS")
    assert read(months.strftime("%m/%d/%Y"))[0].tolist() == months.tolist()


def test_old_names_of_frequencies():
    assert checked_offset("H") == checked_offset("h") and checked_offset("15T").n == 15
    assert steps_from(np.datetime64("2024-01-01"), 2, "15T")[1] == np.datetime64("2024-01-01T00:15")
    assert not counts_from_first("H")
    for old, words in (
        ("M", "MS for the first day of each or ME"),
        ("Q-DEC", "QS-DEC .* or QE-DEC"),
        ("2A", "2YS .* 2YE"),
    ):
        with pytest.raises(ValueError, match=f"old name; say {words}"):
            checked_offset(old)
    with pytest.raises(ValueError, match="is no pandas frequency"):
        checked_offset("soon")
