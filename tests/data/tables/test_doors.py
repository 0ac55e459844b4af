"""Tables that came out wrong once, with their right values, through every door: open_source, evaluate, forecast."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from naive_model import naive_model

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.data.config import DataConfig
from foreloom.data.convert import convert
from foreloom.data.formats.reader import open_source
from foreloom.data.inspect import inspect
from foreloom.data.stream.dataset import SeriesDataset
from foreloom.data.tables.long_table import LongTable
from foreloom.data.tables.options import TableOptions, table_options
from foreloom.data.tables.read import rows_of
from foreloom.evaluation.baselines import Naive, SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.forecast import forecast_file


@pytest.fixture
def cases(shared):
    return shared / "cases" / "tables"


@pytest.fixture
def forecast(tmp_path):
    def run(path, **options):
        return forecast_file(naive_model(), path, tmp_path / "out.csv", prediction_length=4, **options)

    return run


def mase(path, model=Naive, **options):
    task = EvaluationTask(name="t", path=path, **{"prediction_length": 8, **options})
    return evaluate(model(), [task]).tasks[0].scores["MASE"]


def refused_everywhere(path, forecast, sentence):
    for door in (open_source, mase, forecast):
        with pytest.raises(ValueError, match=sentence):
            door(path)


def test_one_format_for_a_column_of_dates(cases, forecast):
    assert mase(cases / "01_dayfirst_week.csv") == pytest.approx(4.5)
    assert mase(cases / "01_same_iso.csv") == pytest.approx(4.5)
    pd.testing.assert_frame_equal(forecast(cases / "01_dayfirst_week.csv"), forecast(cases / "01_same_iso.csv"))
    for name, freq, start in (("daily", "D", "2024-01-01"), ("monthname", "MS", "2015-01-01")):
        (path,) = cases.glob(f"01_*{name}.csv")
        series = open_source(path).read(0)
        np.testing.assert_array_equal(series.target_VT[0], np.arange(series.length))
        assert (series.freq, series.start) == (freq, np.datetime64(start))
        assert forecast(path)["timestamp"].tolist() == list(pd.date_range(start, periods=52, freq=freq)[48:])


def test_a_column_that_fits_both_is_said_whenever_it_is_opened(tmp_path, forecast):
    path = tmp_path / "a.csv"
    path.write_text("ds,y\n01/02/2024,1\n01/03/2024,2\n01/04/2024,3\n")
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match="a.csv: column 'ds' can be read in two ways .*--date-format \"%d/%m/%Y\""):
            assert open_source(path).read(0).freq == "D"
    with pytest.warns(UserWarning, match="two ways"):
        forecast(path)
    assert forecast(path, date_format="%d/%m/%Y")["ds"][0] == pd.Timestamp("2024-05-01")
    assert open_source(path, table=TableOptions(date_format="%d/%m/%Y")).read(0).freq == "MS"


def ids_of(path):
    source = open_source(path)
    return [source.read(item).item_id for item in range(len(source))]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("02_id_leading_zero.csv", ["0012", "0107"]),
        ("02_id_leading_zero_merge.csv", ["01", "1"]),
        ("16_folder_ids", ["1", "x"]),
    ],
)
def test_ids_are_text_as_written(cases, forecast, name, ids):
    assert ids_of(cases / name) == ids
    if not (cases / name).is_dir():
        assert pd.unique(forecast(cases / name)["item_id"]).tolist() == ids


def test_long_ids_and_ids_with_an_exponent_do_not_merge(tmp_path, forecast):
    ids = ["5E3", "5000", "12345678901234567890", "12345678901234567891", "1.0", "1"]
    path = tmp_path / "a.csv"
    path.write_text("item_id,timestamp,target\n" + "".join(f"{i},2024-01-0{d},{d}\n" for i in ids for d in (1, 2, 3)))
    assert ids_of(path) == ids
    assert pd.unique(forecast(path)["item_id"]).tolist() == ids


def test_ids_of_many_columns_do_not_merge():
    """Of 5 columns with 8,192 names each there are 2^65 choices, more than an int64 numbers."""
    num = 2**13
    number_of = {f"id{k}": np.append(np.arange(num), num // 2 if k == 0 else 0) for k in range(5)}
    table = pa.table({name: pa.array(numbers).cast(pa.string()) for name, numbers in number_of.items()})
    table = table.append_column(
        "timestamp", pa.array(np.datetime64("2024-01-01") + number_of["id0"].astype("timedelta64[D]"))
    )
    table = table.append_column("target", pa.array(np.ones(num + 1)))
    read = LongTable.read(rows_of(table, "df", TableOptions(id_column=tuple(number_of))))
    assert len(read.keys_N) == num + 1 and read.names_N[-1] == "4096/0/0/0/0"


def test_joined_ids_are_of_one_series_each(tmp_path, forecast):
    """a/b of c is not a of b/c: not in the data that a table becomes, nor beside their future; forecasts have the
    columns as given."""
    table, keys = TableOptions(id_column=("store", "item")), [("a/b", "c"), ("a", "b/c"), ("a\\", "b"), ("a", "b")]
    days = pd.date_range("2024-01-01", periods=20, freq="D")
    rows = [(*key, day, number * 100 + step, 1) for number, key in enumerate(keys) for step, day in enumerate(days)]
    frame = pd.DataFrame(rows, columns=["store", "item", "timestamp", "target", "promo"])
    frame.to_csv(tmp_path / "sales.csv", index=False)
    assert convert(tmp_path / "sales.csv", tmp_path / "sales.parquet", "parquet", table) == 4
    joined = [r"a\/b/c", r"a/b\/c", r"a\\/b", "a/b"]
    assert ids_of(tmp_path / "sales.parquet") == joined
    converted = forecast(tmp_path / "sales.parquet")
    assert converted["item_id"].unique().tolist() == joined
    future = (
        frame[["store", "item", "promo"]]
        .drop_duplicates()
        .merge(pd.DataFrame({"timestamp": days[-1] + days.freq * np.arange(1, 5)}), how="cross")
    )
    future[::-1].to_csv(tmp_path / "next.csv", index=False)
    told = {"id_column": ["store", "item"], "future": tmp_path / "next.csv"}
    result = forecast(tmp_path / "sales.csv", **told)
    assert list(result[["store", "item"]].drop_duplicates().itertuples(index=False, name=None)) == keys
    assert result["predictions"].tolist() == converted["predictions"].tolist()
    future.replace({"store": {"a/b": "ab"}}).to_csv(tmp_path / "next.csv", index=False)
    with pytest.raises(ValueError, match=r"series 'ab/c' \(row 2\) is not in the table of the past.* a\\/b/c, a/b\\/c"):
        forecast(tmp_path / "sales.csv", **told)


def test_ids_over_the_files_of_a_folder_are_text(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, ids in (("a", pa.array([1, 1])), ("b", pa.array(["1", "x"]))):
        times = pa.array(
            np.array(["2024-01-01", "2024-01-02"], "datetime64[us]") + np.timedelta64(2 * (name == "b"), "D")
        )
        pq.write_table(pa.table({"item_id": ids, "timestamp": times, "target": [1.0, 2.0]}), folder / f"{name}.parquet")
    assert ids_of(folder) == ["1", "x"]
    assert open_source(folder).lengths.tolist() == [3, 1]


def test_files_without_ids_are_a_series_each(tmp_path):
    for name in ("north", "south"):
        (tmp_path / f"{name}.csv").write_text("ds,y\n2024-01-01,1\n2024-01-02,2\n")
    assert ids_of(tmp_path) == ["north", "south"]


def test_encodings_are_said_or_told_by_their_mark(cases, forecast):
    with pytest.warns(UserWarning, match=r"02_id_latin1.csv is not UTF-8 \(row 2\), it is read as Latin-1"):
        assert ids_of(cases / "02_id_latin1.csv") == ["Köln"]
    with pytest.warns(UserWarning, match="is not UTF-8"):
        assert set(forecast(cases / "02_id_latin1.csv")["item_id"]) == {"Köln"}
    plain = forecast(cases / "14_plain.csv")
    pd.testing.assert_frame_equal(forecast(cases / "13_utf16.csv"), plain)
    pd.testing.assert_frame_equal(forecast(cases / "13_ok.csv.gz"), plain)
    assert mase(cases / "13_utf16.csv") == mase(cases / "13_ok.csv.gz") == mase(cases / "14_plain.csv")
    refused_everywhere(cases / "13_cut.csv.gz", forecast, "13_cut.csv.gz cannot be read .* cut short or damaged")


def test_several_series_without_an_id(cases, forecast, tmp_path):
    path = cases / "03_store_item_no_target.csv"
    sentence = (
        r"2013-01-01 00:00:00 stands in it twice \(row 2 and row \d+\).*'store' and 'item'.*--id-column store,item"
    )
    for door in (open_source, mase):
        with pytest.raises(ValueError, match=sentence):
            door(path)
    with pytest.raises(ValueError, match=sentence):
        forecast(path, target="sales")
    with pytest.raises(ValueError, match=r"no column 'target'.* target='sales' \(--target sales\)"):
        forecast(path)
    table = TableOptions(id_column=("store", "item"), target=("sales",))
    source = open_source(path, table=table)
    assert [source.read(item).item_id for item in range(4)] == ["1/1", "1/2", "2/1", "2/2"]
    assert {source.read(item).freq for item in range(4)} == {"D"}
    assert convert(path, tmp_path / "sales.arrow", table=table) == 4
    result = forecast(path, id_column=["store", "item"], target="sales")
    assert result.columns.tolist()[:4] == ["store", "item", "date", "target_name"]
    assert len(result) == 16
    table = pd.DataFrame(
        {"shop": ["n", "s"] * 3, "ds": np.repeat(["2024-01-01", "2024-01-02", "2024-01-03"], 2), "y": 1.0}
    )
    with pytest.raises(ValueError, match="Is the series named by 'shop'. Then say id_column='shop'"):
        naive_model().predict_df(table, prediction_length=1)


def test_periods_are_times(cases, forecast):
    scores = [
        mase(cases / name, SeasonalNaive, prediction_length=12)
        for name in ("04_period_time.parquet", "04_same_timestamps.parquet")
    ]
    assert scores == pytest.approx([0.9045, 0.9045], abs=1e-4)
    pd.testing.assert_frame_equal(*(forecast(path) for path in sorted(cases.glob("04_*.parquet"))))


@pytest.mark.parametrize(
    ("name", "start", "freq", "said"),
    [
        ("08_year.csv", "1950-01-01", "YS-JAN", "years"),
        ("08_epoch_ms.csv", "2024-01-01", "D", "milliseconds since 1970"),
    ],
)
def test_numbers_as_times_are_said(cases, forecast, name, start, freq, said):
    with pytest.warns(UserWarning, match=f"{name}: column 'timestamp' holds whole numbers .* are read as {said}"):
        series = open_source(cases / name).read(0)
    assert (series.start, series.freq) == (np.datetime64(start), freq)
    with pytest.warns(UserWarning, match=said):
        times = forecast(cases / name)["timestamp"]
    assert times.tolist() == list(pd.date_range(start, periods=52, freq=freq)[48:])


def test_ids_that_are_categories_and_ids_that_are_missing(cases, forecast):
    assert ids_of(cases / "05_categorical_id.parquet") == ["a"]
    assert set(forecast(cases / "05_categorical_id.parquet")["item_id"]) == {"a"}
    refused_everywhere(cases / "09_null_id.parquet", forecast, "09_null_id.parquet: column 'item_id' is empty in row 1")


def test_bytes_are_text_or_refused(forecast, tmp_path):
    times = pa.array(np.arange("2024-01-01", "2024-01-21", dtype="datetime64[D]"))
    path = tmp_path / "bytes.parquet"
    columns = {"item_id": ["Köln".encode()] * 20, "timestamp": times, "target": np.ones(20), "promo": [b"y", b"n"] * 10}
    pq.write_table(pa.table(columns), path)
    assert ids_of(path) == ["Köln"] and set(forecast(path)["item_id"]) == {"Köln"}
    assert list(open_source(path).read(0).past["promo"][:2]) == ["y", "n"]
    of_series = {"item_id": ["Köln".encode()], "target": [[1.0] * 9], "static__city": [b"K\xf6ln"]}
    pq.write_table(pa.table(of_series), path)
    with pytest.raises(ValueError, match="'static__city' holds bytes that are not UTF-8"):
        open_source(path).read(0)
    pq.write_table(pa.table(of_series | {"static__city": [b"x"]}), path)
    assert (open_source(path).read(0).item_id, open_source(path).read(0).static) == ("Köln", {"city": "x"})
    for name in ("item_id", "promo"):
        wrong = columns | {name: [b"K\xf6ln"] * 20}
        pq.write_table(pa.table(wrong), path)
        refused_everywhere(path, forecast, f"bytes.parquet: column '{name}' holds bytes in row 0 that are not UTF-8")


def test_columns_of_other_types_are_refused_by_name(cases, forecast, tmp_path):
    refused_everywhere(
        cases / "06_date_column.csv", forecast, "06_date_column.csv: column 'delivered' holds times. Drop it"
    )
    refused_everywhere(cases / "06_clock_column.csv", forecast, "column 'opening' holds times. Drop it")
    refused_everywhere(cases / "10_dup_header.csv", forecast, "10_dup_header.csv has two columns 'target'")
    times = pa.array(np.arange("2024-01-01", "2024-01-21", dtype="datetime64[D]"))
    for values, kind in (
        (times, "times"),
        (pa.array([None, *[1] * 19], pa.time64("us")), "clock times"),
        (pa.array([1] * 20, pa.duration("s")), "durations"),
        (pa.array([{"a": 1}] * 20), "structs"),
        (pa.array([[1, 2]] * 20), "lists"),
    ):
        path = tmp_path / f"{kind}.parquet"
        for name in ("extra", "target"):
            columns = {"timestamp": times, "target": pa.array(np.ones(20)), name: values}
            if kind == "lists" and name == "target":
                continue  # a table with one series a row
            pq.write_table(pa.table(columns), path)
            refused_everywhere(path, forecast, f"column '{name}' holds {kind}")


def test_labels_are_compared_as_the_past_writes_them(cases, forecast):
    def coded(path, future):
        model = naive_model()
        model.predict_df(path, future, 4)
        return model.forecaster.inputs[0]

    past, future = pd.read_csv(cases / "07_codes_past.csv"), pd.read_csv(cases / "07_codes_future.csv")
    assert future["code"].dtype == np.float64  # 1.0, NaN: as pandas reads it where no label is text
    one = coded(past, future)
    both = coded(pd.read_csv(cases / "07_codes_past_b.csv"), pd.read_csv(cases / "07_codes_future_b.csv"))
    np.testing.assert_array_equal(one.future_RH, both.future_RH)
    known = one.context_RC[1][(past["code"] == "1").to_numpy()]
    np.testing.assert_array_equal(one.future_RH[1, [0, 1, 3]], known[:3])
    forecast(cases / "07_codes_past.csv", future=cases / "07_codes_future.csv")


@pytest.mark.parametrize(
    "later", [[1, 0, 1, 1], ["yes", "no", "Yes", "yes"], ["true", "false", "TRUE", "true"], [1.0, 0.0, 1, 1]]
)
def test_truth_values_are_known_however_they_are_written(later):
    frame = pd.DataFrame(
        {"timestamp": pd.date_range("2024-01-01", periods=8), "target": np.arange(8.0), "open": [True, False] * 4}
    )
    future = pd.DataFrame({"timestamp": pd.date_range("2024-01-09", periods=4)})
    model = naive_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "covariates are passed over")
        model.predict_df(frame, future.assign(open=[True, False, True, True]), 4)
        expected = model.forecaster.inputs[0].future_RH
        model.predict_df(frame, future.assign(open=later), 4)
    np.testing.assert_array_equal(model.forecaster.inputs[0].future_RH, expected)


def test_labels_that_never_occurred_are_warned_of():
    frame = pd.DataFrame(
        {"timestamp": pd.date_range("2024-01-01", periods=8), "target": np.arange(8.0), "day": ["mon", "tue"] * 4}
    )
    future = pd.DataFrame({"timestamp": pd.date_range("2024-01-09", periods=4), "day": "Monday"})
    with pytest.warns(UserWarning, match=r"no label of column 'day' \('Monday'\) occurs in the past \('mon', 'tue'\)"):
        naive_model().predict_df(frame, future, 4)


@pytest.mark.parametrize("name", ["14_unnamed_index.csv", "14_trailing_comma_all.csv", "14_id_called_id.csv"])
def test_columns_nobody_meant_are_left_out_with_a_word(cases, forecast, name):
    plain, values = forecast(cases / "14_plain.csv"), open_source(cases / "14_plain.csv").read(0).target_VT
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, series = forecast(cases / name), open_source(cases / name).read(0)
    assert [("a column without a name is left out" in str(w.message)) for w in caught] == [True, True] * (
        name[3:5] != "id"
    )
    np.testing.assert_array_equal(found["predictions"], plain["predictions"])
    np.testing.assert_array_equal(series.target_VT, values)
    assert not series.past
    assert series.item_id == "a"


@pytest.mark.parametrize("name", ["series_id", "ts_id", "unique_id", "id"])
def test_other_names_of_ids_are_known(cases, forecast, tmp_path, name):
    path = tmp_path / "a.csv"
    path.write_text((cases / "14_plain.csv").read_text().replace("item_id", name))
    assert forecast(path).columns[0] == name
    assert ids_of(path) == ["a"]


def test_a_series_without_a_value_is_named(cases, forecast):
    with pytest.warns(UserWarning, match="15_all_empty_series.csv: series 'b' has no value"):
        forecast(cases / "15_all_empty_series.csv")


def test_a_target_without_a_value_beside_others_is_named(forecast, tmp_path):
    days, path = pd.date_range("2024-01-01", periods=4), tmp_path / "two.csv"
    one = pd.DataFrame({"item_id": "a", "timestamp": days, "x": 1.0, "y": [1.0, 2.0, 3.0, 4.0]})
    pd.concat([one, one.assign(item_id="b", y=None), one.assign(item_id="c", y=None)]).to_csv(path, index=False)
    with pytest.warns(UserWarning) as caught:
        forecast(path, target=["x", "y"])
    assert [str(one.message).partition("two.csv: ")[2] for one in caught if "no value" in str(one.message)] == [
        "series 'b' and 1 more have no value of 'y': there is nothing to forecast it from."
    ]


def test_infinite_values_are_refused_or_said(forecast, tmp_path):
    days = pd.date_range("2024-01-01", periods=4).strftime("%Y-%m-%d")
    long, wide = tmp_path / "long.csv", tmp_path / "wide.csv"
    pd.DataFrame({"timestamp": days, "target": [1, np.inf, -np.inf, 4]}).iloc[::-1].to_csv(long, index=False)
    pd.DataFrame({"date": days, "a": [1, 2, 3, 4], "b": [1, 2, np.inf, 4]}).iloc[::-1].to_csv(wide, index=False)
    with pytest.raises(ValueError, match=r"'target' is infinite in row 4 .*Leave the cell empty"):
        forecast(long)
    for path, sentence in (
        (long, "'target' holds 2 infinite values, taken as missing: the first in row 4"),
        (wide, "'b' holds 1 infinite value, taken as missing: the first in row 3"),
    ):
        for _ in range(2):  # also when it is opened again
            with pytest.warns(UserWarning, match=sentence):
                open_source(path)


def test_decimal_commas_are_read_when_they_are_said(cases, forecast, tmp_path):
    path = cases / "13_semicolon_decimal_comma.csv"
    refused_everywhere(path, forecast, "cannot be read .*parted by semicolons.*--separator ';' --decimal ,")
    plain, text = forecast(cases / "14_plain.csv"), {"separator": ";", "decimal": ","}
    pd.testing.assert_frame_equal(forecast(path, **text), plain)
    assert open_source(path, table=TableOptions(**text)).read(0).start == np.datetime64("2024-01-01")
    thousands = tmp_path / "thousands.csv"
    thousands.write_text("ds;y\n2024-01-01;1,5\n2024-01-02;1.000\n2024-01-03;2,5\n")
    with pytest.raises(ValueError, match="column 'y' holds '1.000' in row 3"):
        forecast(thousands, **text)
    with pytest.raises(
        ValueError, match="column 'y' holds '1,5' in row 2.* Is the comma its decimal point.*--decimal ,"
    ):
        forecast(thousands, separator=";")
    prices = tmp_path / "prices.csv"
    prices.write_text("ds;y;price;code\n" + "".join(f"2024-01-0{day};{day};{day},5;{day}-x\n" for day in range(1, 8)))
    with pytest.warns(
        UserWarning, match="column 'price' holds text such as '1,5', and text is labels.*--decimal ,"
    ) as told:
        assert open_source(prices, table=TableOptions(separator=";")).read(0).past["price"].dtype == object
    assert len(told) == 1, "of code nothing need be said"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(prices, table=TableOptions(separator=";", category="price"))
        assert open_source(prices, table=TableOptions(**text)).read(0).past["price"][0] == 1.5


def test_a_file_of_other_columns_is_named(cases):
    with pytest.raises(
        ValueError, match=r"b.csv has no column 'target', a.csv beside it has one. Its columns: item_id, .*value"
    ):
        open_source(cases / "16_folder_missing_target")


def test_zones_and_calendars(cases, forecast):
    refused_everywhere(cases / "17_mixed_zone.csv", forecast, "in row 3: some times state a UTC offset and some do not")
    with pytest.warns(UserWarning, match="several UTC offsets"):
        assert forecast(cases / "17_local_midnight_offsets.csv")["timestamp"][0] == pd.Timestamp("2024-04-27")
    hours = pd.read_csv(cases / "18_business_hours.csv", parse_dates=["timestamp"])["timestamp"]
    expected = pd.date_range(hours.iloc[-1], periods=5, freq="bh")[1:]
    assert forecast(cases / "18_business_hours.csv")["timestamp"].tolist() == list(expected)
    months = [pd.Timestamp(f"2025-0{month}-15") for month in (1, 2, 3, 4)]
    assert forecast(cases / "18_monthly_15th.csv")["timestamp"].tolist() == months
    assert forecast(cases / "18_monthly_15th.csv", freq="MS")["timestamp"].tolist() == months


def test_json_lines_are_refused_with_their_line(cases, tmp_path):
    with pytest.raises(ValueError, match="11_cat_scalar.jsonl:1: 'past_cat__x' is 7; a list with a label"):
        open_source(cases / "11_cat_scalar.jsonl")
    with pytest.raises(ValueError, match="11_freq_number.jsonl:1: freq is 1; write the distance of the steps"):
        open_source(cases / "11_freq_number.jsonl")
    path = tmp_path / "a.jsonl"
    path.write_text('{"target": [1, 2], "timestamp": ["2024-01-01", "2024-01-05"]}\n')
    series = open_source(path).read(0)
    assert series.timestamps.tolist() == np.array(["2024-01-01", "2024-01-05"], "datetime64[us]").tolist()
    assert series.start == np.datetime64("2024-01-01")
    path.write_text('{"target": [1, 2], "timestamp": ["2024-01-01"]}\n')
    with pytest.raises(ValueError, match="a.jsonl:1: timestamp has 1 steps, the target 2"):
        open_source(path)
    path.write_text('{"target": [1], "past_cat__x": "red"}\n')
    with pytest.raises(ValueError, match="a.jsonl:1: 'past_cat__x' is 'red'; a list with a label"):
        open_source(path)


def test_frames_that_speak_arrow_are_read():
    class Polars:
        """As polars hands out its frames."""

        def __init__(self, table):
            self.__arrow_c_stream__ = table.__arrow_c_stream__

    frame = pd.DataFrame(
        {
            "unique_id": list("aaab"),
            "ds": [*pd.date_range("2024-01-01", periods=3), pd.Timestamp("2024-01-03")],
            "y": 1.0,
        }
    )
    expected = naive_model().predict_df(frame, prediction_length=2)
    found = naive_model().predict_df(Polars(pa.Table.from_pandas(frame)), prediction_length=2)
    assert found.astype(str).equals(expected.astype(str))
    for other in ({"y": [1]}, [1, 2], "sales.csv", None):
        with pytest.raises(TypeError, match="df is of type .*give a data frame with a row a series and time step"):
            naive_model().predict_df(other)


def test_a_row_with_a_comma_too_many_is_named(tmp_path, forecast):
    path = tmp_path / "a.csv"
    path.write_text("item_id,timestamp,target\na,2024-01-01,1\na,2024-01-02,2,\n")
    refused_everywhere(path, forecast, "a.csv cannot be read as a table: row 3: Expected 3 columns, got 4")


def roles_of(path, **said):
    series = open_source(path, table=table_options(said)).read(0)
    return {
        role: {k: np.asarray(v).tolist() for k, v in getattr(series, role).items()} for role in ("past", "future")
    } | {"static": series.static}


@pytest.fixture
def promo(tmp_path):
    """Four days, then two without a target."""
    path = tmp_path / "promo.csv"
    rows = [f"a,2024-01-0{day},{day if day < 5 else ''},{day % 2},0.{day},{day // 4},north" for day in range(1, 7)]
    path.write_text("\n".join(["item_id,timestamp,target,promo,rain,kind,region", *rows]))
    return path


def test_roles_are_said_by_the_columns_names_or_by_their_owner(promo, tmp_path):
    prefixed = tmp_path / "prefixed.csv"
    prefixed.write_text(
        promo.read_text().replace("promo,rain,kind,region", "future__promo,past__rain,future_cat__kind,static__region")
    )
    kinds = ["0", "0", "0", "1", "1", "1"]
    expected = {
        "past": {"rain": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
        "future": {"promo": [1.0, 0, 1, 0, 1, 0], "kind": kinds},
        "static": {"region": "north"},
    }
    said = {"known_ahead": "promo,kind", "static": ["region"], "category": "kind"}
    assert roles_of(prefixed) == roles_of(promo, **said) == roles_of(promo, **said, past="rain") == expected
    with pytest.warns(UserWarning, match="promo.csv: rain, kind: left out"):
        assert roles_of(promo, past=[], known_ahead="promo", static="region")["past"] == {}
    with pytest.raises(ValueError, match="promo.csv has no column 'prom'. Did you mean 'promo'"):
        roles_of(promo, known_ahead="prom")
    with pytest.raises(ValueError, match="column 'promo' is asked for twice"):
        roles_of(promo, known_ahead="promo", past="promo")
    with pytest.raises(
        ValueError, match=r"'promo' is static, one value a series, and holds 0.0 in row 3 \(series 'a'\) after 1"
    ):
        roles_of(promo, static="promo")
    with pytest.raises(ValueError, match="separator ';;': one character is wanted"):
        table_options({"separator": ";;"})
    task = EvaluationTask(
        name="t", path=promo, prediction_length=1, table=TableOptions(known_ahead=("promo",)), covariates=True
    )
    assert sorted(task.open()[0].read(0).future) == ["promo"]
    source, known = {"path": str(promo), "table": {"known_ahead": "promo", "past": []}}, Located({}, {})
    config, problems = validate(
        DataConfig, {"sources": [source], "context_length": 2, "prediction_length": 1}, known, "data"
    )
    with pytest.warns(UserWarning, match="left out"):
        dataset = SeriesDataset(config, seed=0)
    assert not problems and dataset.statistics()[0].num_items == 1 and dataset.sources[0].num_rows.tolist() == [2]
    source["table"] = {"freqq": "D"}
    _, (problem,) = validate(
        DataConfig, {"sources": [source], "context_length": 2, "prediction_length": 1}, known, "data"
    )
    assert problem == "data.sources.0.table.freqq: unknown setting. Did you mean freq?"


def test_what_is_known_ahead_stands_below_the_past_or_in_a_file(promo, tmp_path):
    def asked(**options):
        model, said = naive_model(), []
        forecast_file(model, promo, tmp_path / "out.csv", prediction_length=2, say=said.append, **options)
        (one,) = model.forecaster.inputs
        return one.context_RC.tolist(), one.future_RH[-1].tolist(), said[0]

    roles = {"known_ahead": "promo", "past": [], "static": "region"}
    with pytest.warns(UserWarning, match="left out"):
        context, future, said = asked(**roles)
    assert (context, future) == ([[1, 2, 3, 4], [1, 0, 1, 0]], [1, 0])
    assert said.startswith(
        "understood: 1 series of 4 steps, frequency D; target target; known ahead promo; static region "
        "(covariates passed over: the model sees one series at a time); naive"
    )
    later = tmp_path / "later.csv"
    later.write_text("item_id,timestamp,promo\na,2024-01-05,5\na,2024-01-06,6\n")
    promo.write_text("\n".join(promo.read_text().splitlines()[:5]).replace("promo", "future__promo"))
    assert asked(future=later, past=[])[:2] == (context, [5, 6])
    with pytest.raises(ValueError, match="'future__promo': known ahead, but .* --future .*ends in 0 such.*--past"):
        asked()
    later.write_text(later.read_text().replace("promo", "rain"))
    with pytest.raises(ValueError, match="later.csv has no column 'future__promo', which is known ahead"):
        asked(future=later)


def test_absent_steps_are_missing_values_at_every_door(tmp_path, forecast):
    days = pd.date_range("2024-01-01", periods=40, freq="D")
    whole = pd.DataFrame({"item_id": "a", "timestamp": days, "target": np.arange(40.0), "x": 1.0})
    gapped, filled = tmp_path / "gapped.csv", tmp_path / "filled.csv"
    whole.drop(index=[7, 8, 20]).to_csv(gapped, index=False)
    whole.assign(target=whole["target"].where(~whole.index.isin([7, 8, 20]))).to_csv(filled, index=False)
    sentence = r"gapped.csv: 3 of 40 steps are absent, in 1 of 1 series, .* from 2024-01-07 .* to 2024-01-10 .* at D"
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match=sentence):
            series = open_source(gapped).read(0)
    np.testing.assert_array_equal(series.target_VT, open_source(filled).read(0).target_VT)
    assert series.freq == "D" and np.isnan(series.past["x"][[7, 8, 20]]).all()
    with pytest.warns(UserWarning, match=sentence):
        assert inspect(gapped, context_length=4, prediction_length=4).num_missing == 3
    with pytest.warns(UserWarning, match=sentence):
        assert mase(gapped) == mase(filled)
    with pytest.warns(UserWarning, match=sentence):
        pd.testing.assert_frame_equal(forecast(gapped), forecast(filled))
    as_is = TableOptions(fill_gaps=False)
    assert open_source(gapped, table=as_is).read(0).length == 37
    wide = tmp_path / "wide.csv"
    whole.drop(index=[7])[["timestamp", "x"]].rename(columns={"timestamp": "date", "x": "load"}).to_csv(
        wide, index=False
    )
    with pytest.warns(UserWarning, match="wide.csv: 1 of 40 steps are absent"):
        assert np.isnan(open_source(wide).read(0).target_VT[0, 7])
    whole.iloc[[0, 3, 4, 6, 10, 21, 25, 37, 38, 39]].to_csv(gapped, index=False)
    refused_everywhere(
        gapped, forecast, "gapped.csv: series .a. is not regular: .* 2024-01-01 .*--freq D.*--fill-gaps.*--no-fill-gaps"
    )
    with pytest.warns(UserWarning, match="30 of 40 steps are absent"):
        assert open_source(gapped, table=TableOptions(freq="D")).read(0).length == 40
    with pytest.warns(UserWarning, match="30 of 40 steps are absent"):
        assert forecast(gapped, fill_gaps=True)["timestamp"][0] == pd.Timestamp("2024-02-10")


def test_days_of_a_zone_go_on_over_a_change_of_the_clock(tmp_path, forecast):
    days = pd.date_range("2024-03-20", periods=20, freq="D", tz="Europe/Berlin")
    path = tmp_path / "a.parquet"
    pd.DataFrame({"timestamp": days, "target": np.arange(20.0)}).to_parquet(path)
    series = open_source(path).read(0)
    assert (series.freq, series.start) == ("D", np.datetime64("2024-03-20"))
    assert forecast(path)["timestamp"][0] == pd.Timestamp("2024-04-09", tz="Europe/Berlin")


def test_series_one_below_the_other_without_an_id_are_refused(tmp_path, forecast):
    path = tmp_path / "a.csv"
    rows = [f"2024-0{month}-0{day},{day},{shop}" for month, shop in ((2, "north"), (1, "south")) for day in range(1, 6)]
    path.write_text("\n".join(["timestamp,target,shop", *rows]))
    refused_everywhere(
        path, forecast, "its times go back in row 7, where 'shop' changes from 'north' to 'south'.*--id-column shop"
    )


def test_a_folder_and_a_data_set_of_series_are_forecast_as_the_table_they_were(cases, tmp_path, forecast):
    expected = forecast(cases / "02_id_leading_zero.csv")
    convert(cases / "02_id_leading_zero.csv", tmp_path / "series.arrow")
    pd.testing.assert_frame_equal(forecast(tmp_path / "series.arrow"), expected, check_dtype=False)
    assert pd.unique(forecast(cases / "16_folder_ids")["item_id"]).tolist() == ["1", "x"]
    with pytest.raises(ValueError, match="series.arrow holds a series a row, so there is no table to say anything of"):
        forecast(tmp_path / "series.arrow", target="sales")
    with pytest.raises(ValueError, match="series.arrow holds a series a row.*: leave freq out"):
        open_source(tmp_path / "series.arrow", table=TableOptions(freq="D"))
    months = tmp_path / "months.jsonl"
    months.write_text(
        '{"target": [[1, 2, 3], [4, 5, 6]], "start": "2024-01-15", "freq": "MS", "future__p": [1, 2, null]}\n'
    )
    with pytest.raises(ValueError, match="'future__p': known ahead, but"):
        forecast(months)
    months.write_text(
        '{"target": [[1, 2, 3], [4, 5, 6]], "start": "2024-01-15", "freq": "MS", "past__p": [1, 2, null]}\n'
    )
    found = forecast(months)
    assert found["timestamp"][0] == pd.Timestamp("2024-04-15") and found["target_name"].unique().tolist() == [
        "target_0",
        "target_1",
    ]
    months.write_text('{"target": [1, 2, 3]}\n')
    with pytest.raises(ValueError, match="series '0' states no times .* from_pretrained"):
        forecast(months)


def test_a_covariate_may_say_that_it_is_known_ahead(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "ds,y,future__price,past__seen,future_cat__day,rain\n"
        + "".join(f"2024-01-0{day},{day},2.5,{day},mon,0.{day}\n" for day in (1, 2, 3))
    )
    series = open_source(path).read(0)
    assert {name: values.tolist() for name, values in series.future.items()} == {"price": [2.5] * 3, "day": ["mon"] * 3}
    assert sorted(series.past) == ["rain", "seen"]
