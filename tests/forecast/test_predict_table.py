"""`Model.predict_df`: rows and columns, covariates by role, Nixtla's names, and every refusal as a sentence."""

import numpy as np
import pandas as pd
import pytest
from naive_model import naive_model


def table(num_steps=6, ids=("b", "a"), **columns):
    frame = pd.DataFrame(
        {
            "item_id": np.repeat(ids, num_steps),
            "timestamp": np.tile(pd.date_range("2024-01-01", periods=num_steps, freq="D"), len(ids)),
            "target": np.arange(float(num_steps * len(ids))),
        }
    )
    return frame.assign(**columns)


def future(num_steps=2, ids=("b", "a"), **columns):
    frame = table(num_steps, ids).drop(columns="target")
    return frame.assign(timestamp=frame["timestamp"] + pd.Timedelta(days=6), **columns)


def test_rows_and_columns():
    shuffled = table().sample(frac=1, random_state=3)
    first, second = pd.unique(shuffled["item_id"])
    result = naive_model().predict_df(shuffled, prediction_length=2, quantile_levels=[0.1, 0.25])
    assert result.columns.tolist() == ["item_id", "timestamp", "target_name", "predictions", "0.1", "0.25"]
    assert result["item_id"].tolist() == [first] * 2 + [second] * 2
    assert result["timestamp"].tolist() == list(pd.date_range("2024-01-07", periods=2)) * 2
    last = {"b": 5.0, "a": 11.0}
    np.testing.assert_allclose(result["predictions"], np.repeat([last[first], last[second]], 2) + 0.5)
    np.testing.assert_allclose(result["0.25"], result["predictions"] - 0.25)
    assert set(result["target_name"]) == {"target"}


def test_ids_and_times_in_the_index_of_a_frame_are_columns():
    model, later = naive_model(), future(promo=[1.0, 2.0, 3.0, 4.0])
    expected = model.predict_df(table(promo=0.0), later, 2)
    for index in (["item_id"], ["timestamp"], ["item_id", "timestamp"]):
        indexed = model.predict_df(table(promo=0.0).set_index(index), later.set_index(index), 2)
        pd.testing.assert_frame_equal(indexed, expected)
    for name in ("date", "row", "promo"):  # an index beside the times, and one that is neither
        pd.testing.assert_frame_equal(model.predict_df(table(promo=0.0).rename_axis(name), later, 2), expected)
    one = table(ids=("b",)).set_index("timestamp")
    nameless = naive_model().predict_df(one.rename_axis(None), prediction_length=2)
    pd.testing.assert_frame_equal(nameless, naive_model().predict_df(one, prediction_length=2))
    # Two series, one after the other, are not one.
    one, two = table(ids=("b",)), table(ids=("a",)).assign(timestamp=lambda x: x["timestamp"] + pd.Timedelta(days=6))
    result = model.predict_df(pd.concat([one, two]).set_index("item_id"), prediction_length=1)
    assert result["item_id"].tolist() == ["b", "a"]


def test_several_targets_come_one_after_the_other():
    result = naive_model().predict_df(table(other=7.0), prediction_length=2, target=["target", "other"])
    assert result["target_name"].tolist() == ["target", "target", "other", "other"] * 2
    np.testing.assert_allclose(result["0.1"], [5.1, 5.1, 7.1, 7.1, 11.1, 11.1, 7.1, 7.1], rtol=1e-6)


def test_columns_of_future_df_are_known_ahead_and_the_rest_is_past():
    model = naive_model()
    known = future(promo=[1.0, 2.0, 3.0, 4.0]).sample(frac=1, random_state=1)
    model.predict_df(table(promo=0.0, seen=range(12), flag=[True, False] * 6), known, 2)
    b, a = model.forecaster.inputs
    assert (b.num_targets, b.num_past, b.num_future) == (1, 2, 1)
    np.testing.assert_array_equal(b.future_RH[3], [1, 2])
    np.testing.assert_array_equal(a.future_RH[3], [3, 4])
    np.testing.assert_array_equal(b.context_RC[2], range(6))
    np.testing.assert_allclose(b.context_RC[1], [(2.5 + 6) / 4, (2.5 + 9) / 4] * 3)  # flag, by the target


def test_nixtla_names_are_known():
    names = {"item_id": "unique_id", "timestamp": "ds", "target": "y"}
    result = naive_model().predict_df(table().rename(columns=names), prediction_length=1)
    assert result.columns.tolist()[:3] == ["unique_id", "ds", "target_name"]
    assert set(result["target_name"]) == {"y"}


def test_text_timestamps_empty_targets_and_categories_are_read():
    model = naive_model()
    frame = table(kind=pd.Categorical(["1", "2", None] * 4), note=["x", None] * 6, code=[1, None, 3, 4] * 3)
    frame["timestamp"] = frame["timestamp"].dt.strftime("%Y-%m-%d")
    frame.loc[[0, 5], "target"] = None
    result = model.predict_df(frame, prediction_length=1)
    assert result["timestamp"].tolist() == [pd.Timestamp("2024-01-07")] * 2
    one = model.forecaster.inputs[0]
    assert np.isnan(one.context_RC[0, [0, 5]]).all()
    np.testing.assert_array_equal(one.context_RC[1], [1, np.nan, 3, 4, 1, np.nan])  # code stays a number
    assert np.isfinite(one.context_RC[2:]).all()


def test_text_targets_that_are_numbers_are_read():
    frame = table()
    frame["target"] = frame["target"].astype(str)
    np.testing.assert_allclose(naive_model().predict_df(frame, prediction_length=1)["predictions"], [5.5, 11.5])


def swap(frame, row, column, value):
    return frame.assign(**{column: frame[column].astype(object).where(np.arange(len(frame)) != row, value)})


@pytest.mark.parametrize(
    ("frame", "later", "sentence"),
    [
        (table().iloc[:0], None, "df has no rows"),
        (table().rename(columns={"target": "targt"}), None, "no column 'target'. Did you mean 'targt'.*item_id"),
        (table().rename(columns={"item_id": "store"}), None, "no column 'item_id'. Its columns: store, timestamp"),
        (swap(table(), 7, "target", "n/a"), None, r"column 'target' holds 'n/a' in row 7 \(series 'a'\)"),
        (swap(table(), 7, "target", np.inf), None, r"'target' is infinite in row 7 \(series 'a'\)"),
        (swap(table(p=1.0), 3, "p", "1,5"), None, r"column 'p' holds '1,5' in row 3 \(series 'b'\)"),
        (swap(table(), 3, "item_id", None), None, "column 'item_id' is empty in row 3"),
        (swap(table(), 3, "timestamp", None), None, "column 'timestamp' is empty in row 3"),
        (swap(table(), 3, "timestamp", "soon"), None, "column 'timestamp' holds 'soon' in row 3, which is not a time"),
        (table(timestamp=range(12)), None, "column 'timestamp' holds numbers, not times"),
        (table(a=1.0, b=2.0).rename(columns={"b": "a"}), None, "df has two columns 'a'"),
        (table(p=1.0), future(p=1.0, q=1.0).rename(columns={"q": "p"}), "future_df has two columns 'p'"),
        (table(ids=(7, 3)), future(ids=("7", "4")), "series '4' .* in the table of the past, .* called 7, 3"),
        (swap(table(ids=(7, 3)), 7, "target", "n/a"), None, r"'n/a' in row 7 \(series 3\)"),
        (table(day=pd.Timestamp("2024-01-01")), None, "column 'day' holds times"),
        (pd.concat([table(), table().iloc[[8]]]), None, r"series 'a' has 2024-01-03 .* twice \(row 8 and row 12\)"),
        (table(2), None, "longest series, 'b', has 2 rows and 3 are needed"),
        (table(), future(promo=1.0), "future_df has a column 'promo' that df lacks"),
        (table(promos=1.0), future(promo=1.0), "column 'promo' that df lacks. Did you mean 'promos'"),
        (table(), future(target=1.0), "future_df holds the target column 'target'"),
        (table(), future().drop(columns="timestamp"), "future_df has no column 'timestamp'"),
        (table(), future(ids=("b",)), r"future_df lacks series 'a' \(1 of 2 are missing\)"),
        (table(), future(ids=("b", "a", "c")), r"future_df: series 'c' \(row 4\) is not in the table of the past"),
        (table(), future(3), "future_df has 3 rows for series 'b'; prediction_length is 2"),
        (table(), table(2).drop(columns="target"), r"has 2024-01-01 .* in row 0 \(series 'b'\) where 2024-01-07"),
        (table().assign(target=lambda x: x["target"] + 1j), None, r"column 'target' holds '1j' in row 0"),
        (table(p=1.0), swap(future(p=1.0), 1, "p", "x"), r"future_df: column 'p' holds 'x' in row 1 \(series 'b'\)"),
    ],
)  # fmt: skip
def test_bad_tables_get_a_sentence(frame, later, sentence):
    with pytest.raises(ValueError, match=sentence):
        naive_model().predict_df(frame, later, 2)


def test_a_time_that_stands_twice_is_not_told_by_what_is_measured():
    days = pd.date_range("2024-01-01", periods=6).tolist()
    lone = pd.DataFrame({"timestamp": [*days, days[2]], "target": [1, 2, 3, 1, 2, 3, 2]})
    with pytest.raises(ValueError, match="stands in it twice .*Name the column that tells them apart") as raised:
        naive_model().predict_df(lone, prediction_length=2)
    assert "clock" not in str(raised.value)
    hours = pd.date_range("2024-10-26", periods=48, freq="h", tz="Europe/Berlin").tz_localize(None)
    for ids in ({}, {"item_id": "a"}):
        with pytest.raises(ValueError, match="2024-10-27 02:00:00 .*twice .*If a clock was set back there"):
            naive_model().predict_df(pd.DataFrame({"timestamp": hours, "target": 1.0, **ids}), prediction_length=2)


def test_a_series_of_pandas_is_refused_with_a_sentence():
    with pytest.raises(TypeError, match="df is of type Series: give a data frame"):
        naive_model().predict_df(table(ids=("a",)).set_index("timestamp")["target"], prediction_length=2)


def test_a_future_table_without_covariates_changes_nothing():
    model = naive_model()
    pd.testing.assert_frame_equal(model.predict_df(table(), future(), 2), model.predict_df(table(), None, 2))


def test_ids_are_compared_as_text():
    model = naive_model()
    model.predict_df(table(ids=(7, 3), p=0.0), future(ids=("7", "3"), p=[1.0, 2.0, 3.0, 4.0]), 2)
    np.testing.assert_array_equal([one.future_RH[1] for one in model.forecaster.inputs], [[1, 2], [3, 4]])


def test_integer_ids_stay_integers():
    result = naive_model().predict_df(table(ids=(7, 3)), prediction_length=1)
    assert result["item_id"].tolist() == [7, 3]
    assert result["item_id"].dtype == np.int64


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"target": ["target", "target"]}, "column 'target' is asked for twice"),
        ({"target": "item_id"}, "column 'item_id' is asked for twice"),
        ({"timestamp_column": "item_id"}, "column 'item_id' is asked for twice"),
        ({"target": []}, "target is an empty list"),
    ],
)
def test_every_column_is_asked_for_once(columns, sentence):
    with pytest.raises(ValueError, match=sentence):
        naive_model().predict_df(table(), None, 2, **columns)


@pytest.mark.parametrize(
    ("stamps", "ahead"),
    [
        (["2024-01-01", "2024-01-01 01:00", "2024-01-01T02:00:00"], "2024-01-01 03:00"),
        (["31/12/2023", "01/01/2024", "02/01/2024"], "2024-01-03"),
        # The clock goes from +01:00 to +02:00.
        (
            [t.isoformat() for t in pd.date_range("2024-03-31", periods=4, freq="h", tz="Europe/Berlin")],
            "2024-03-31 03:00+00:00",
        ),
        (pd.period_range("2024-01", periods=5, freq="M"), "2024-06-01"),
        ([day.date() for day in pd.date_range("2024-01-30", periods=3)], "2024-02-02"),
    ],
)
def test_times_in_many_spellings(stamps, ahead):
    frame = pd.DataFrame({"item_id": "a", "timestamp": stamps, "target": 1.0})
    assert naive_model().predict_df(frame, prediction_length=1)["timestamp"][0] == pd.Timestamp(ahead)


def test_categories_as_ids():
    frame = table().assign(item_id=lambda f: pd.Categorical(f["item_id"], categories=["unused", "a", "b"]))
    result = naive_model().predict_df(frame, future(), 2)
    assert result["item_id"].tolist() == ["b", "b", "a", "a"]


def test_a_table_without_ids_is_one_series():
    one = table()
    one = one[one["item_id"] == one["item_id"].iloc[0]]
    with_ids = naive_model().predict_df(one, prediction_length=2)
    without = naive_model().predict_df(one.drop(columns="item_id"), prediction_length=2)
    assert without["item_id"].unique().tolist() == ["series"]
    pd.testing.assert_frame_equal(without.drop(columns="item_id"), with_ids.drop(columns="item_id"))
    with pytest.raises(ValueError, match="no column 'item_id'"):  # two series: every time stands there twice
        naive_model().predict_df(table().drop(columns="item_id"), prediction_length=2)


def test_columns_may_be_numbered_but_not_named_as_those_of_the_forecast():
    numbered = table().rename(columns={"target": 0})
    assert naive_model().predict_df(numbered, prediction_length=1, target=0)["target_name"].tolist() == ["0", "0"]
    for name in ("predictions", "target_name"):
        with pytest.raises(ValueError, match=f"a column of the forecast is called '{name}' too"):
            naive_model().predict_df(table().rename(columns={"item_id": name}), None, 1, id_column=name)


@pytest.mark.parametrize("freq", ["0h", "-1h", "daily"])
def test_a_frequency_goes_forward(freq):
    with pytest.raises(ValueError, match=f"freq '{freq}'.*use h, 30min, D"):
        naive_model().predict_df(table(), prediction_length=1, freq=freq)
