"""Rolling windows of a table: forecasts by window, scores by part, beside Seasonal Naive."""

import numpy as np
import pandas as pd
import pytest
from naive_model import naive_model

from foreloom.data.convert import convert
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.tasks import DECILES, EvaluationTask
from foreloom.forecast.files import write_table

DAYS = pd.date_range("2024-01-01", periods=30)


def frame(**columns):
    rng = np.random.default_rng(0)
    parts = [pd.DataFrame({"item_id": name, "timestamp": DAYS, "target": rng.normal(9, 2, 30)}) for name in "ba"]
    return pd.concat(parts).assign(**columns).sample(frac=1, random_state=0)


def test_windows_end_the_series_and_see_what_came_before(tmp_path):
    df, model = frame(), naive_model()
    found = model.cross_validation(df, 4, 3, [0.25, 0.5], step=5, season_length=7)
    table = found.forecasts
    assert [*table.columns] == [
        "item_id", "timestamp", "cutoff", "window", "target_name", "target", "predictions", "0.25", "0.5",
        "seasonal-naive",
    ]  # fmt: skip
    assert len(table) == 2 * 3 * 4 and table["item_id"].tolist()[:1] == [df["item_id"].iloc[0]], "as first met"
    values = df.set_index(["item_id", "timestamp"])["target"]
    for row in table.itertuples(index=False):
        assert row.target == values[row.item_id, row.timestamp]
        assert row.predictions == pytest.approx(values[row.item_id, row.cutoff] + 0.5, abs=1e-5), (
            "the last value + level"
        )
        assert row[-1] == pytest.approx(values[row.item_id, row.timestamp - pd.Timedelta(days=7)])
    assert table["cutoff"].unique().tolist() == [DAYS[n] for n in (15, 20, 25)]
    assert table.groupby("window")["timestamp"].max().tolist() == [DAYS[n] for n in (19, 24, 29)]
    # Scores are those of the evaluator on the same windows, whatever levels are shown.
    write_table(df, tmp_path / "t.csv")
    task = EvaluationTask(
        name="t", path=tmp_path / "t.csv", prediction_length=4, num_rolls=3, stride=5, season_length=7
    )
    for name, forecaster in (("model", model.forecaster), ("seasonal-naive", SeasonalNaive())):
        expected = evaluate(forecaster, [task]).tasks[0].scores
        whole = found.of("all").set_index("model").loc[name]
        assert whole["num_windows"] == 6 and whole["num_points"] == 24
        for metric in ("WQL", "MASE", "coverage_50", "coverage_80", "coverage_90"):
            assert whole[metric] == pytest.approx(expected[metric], rel=1e-6), metric
    errors = (table["predictions"] - table["target"]).abs()
    for by, column in (("series", "item_id"), ("window", "window")):
        parts = found.of(by).query("model == 'model'").set_index("name")["MAE"]
        assert parts.to_dict() == pytest.approx({str(k): v for k, v in errors.groupby(table[column]).mean().items()})
    by_step = found.of("step").query("model == 'model'")["MAE"].tolist()
    assert by_step == pytest.approx([errors[step::4].mean() for step in range(4)])
    assert found.of("target").empty and "coverage_80" in repr(found)
    assert found.kept.task.quantile_levels == DECILES


def test_data_of_any_kind(tmp_path):
    """A path gives what its frame gives; series without times are counted; what is known ahead is known over windows;
    rows that hold the future alone are no window."""
    df, model = frame(promo=np.arange(60.0)), naive_model()
    write_table(df, tmp_path / "t.csv")
    by_frame = model.cross_validation(df, 3, 2, known_ahead="promo").forecasts
    by_file = model.cross_validation(tmp_path / "t.csv", 3, 2, known_ahead=["promo"]).forecasts
    pd.testing.assert_frame_equal(by_frame, by_file, check_dtype=False)
    assert not np.isnan(model.forecaster.inputs[0].future_RH[-1]).any() and model.forecaster.inputs[0].num_future == 1
    later = pd.DataFrame({"timestamp": pd.date_range("2024-01-31", periods=5), "target": np.nan, "promo": 1.0})
    longer = pd.concat([df, later.assign(item_id="a"), later.assign(item_id="b")])
    with_future = model.cross_validation(longer, 3, 2, known_ahead="promo").forecasts
    pd.testing.assert_frame_equal(with_future, by_frame)
    (tmp_path / "x.jsonl").write_text('{"item_id": "x", "sequence": [1, 2, 3, 4, 5, 6]}\n')
    convert(tmp_path / "x.jsonl", tmp_path / "x.arrow")
    table = model.cross_validation(tmp_path / "x.arrow", 2, 2).forecasts
    assert table[["timestamp", "cutoff", "target"]].to_numpy().tolist() == [[2, 1, 3], [3, 1, 4], [4, 3, 5], [5, 3, 6]]
    two = pd.DataFrame({"ds": DAYS, "y": np.arange(30.0), "z": np.arange(30.0) ** 2})
    found = model.cross_validation(two, 2, 2, target=["y", "z"], timestamp_column="ds")
    assert found.of("target")["name"].tolist() == ["0", "0", "1", "1"]
    assert found.forecasts["target_name"].tolist() == ["y", "y", "z", "z"] * 2 and "ds" in found.forecasts


def test_a_frame_keeps_its_ids_and_names():
    df, model = frame(), naive_model()
    plain = model.cross_validation(df, 4, 2).forecasts
    own = df.assign(unique_id=df["item_id"].map({"a": 7, "b": 10}), ds=df["timestamp"], y=df["target"])
    found = model.cross_validation(own[["unique_id", "ds", "y"]], 4, 2).forecasts
    asked = model.predict_df(own[["unique_id", "ds", "y"]], prediction_length=4)
    assert [*found.columns[:2]] == [*asked.columns[:2]] == ["unique_id", "ds"]
    assert found["unique_id"].dtype == asked["unique_id"].dtype == np.int64
    assert found["unique_id"].tolist() == plain["item_id"].map({"a": 7, "b": 10}).tolist()
    assert found["predictions"].tolist() == plain["predictions"].tolist()
    two = df.assign(store=df["item_id"].map({"a": 1, "b": 2}), item=0.5).drop(columns="item_id")
    found = model.cross_validation(two, 4, 2, id_column=["store", "item"]).forecasts
    assert [*found.columns[:3]] == ["store", "item", "timestamp"] and found["item"].tolist() == [0.5] * 16
    assert found["store"].tolist() == plain["item_id"].map({"a": 1, "b": 2}).tolist()
    lone = model.cross_validation(df[df["item_id"] == "a"].drop(columns="item_id"), 4, 2).forecasts
    assert lone["item_id"].unique().tolist() == ["series"]
    with pytest.raises(ValueError, match="a column of the forecasts is called 'window' too: rename it"):
        model.cross_validation(df.rename(columns={"item_id": "window"}), 4, 2, id_column="window")


@pytest.mark.parametrize(("freq", "zone"), [("h", "Europe/Berlin"), ("D", "Europe/Berlin"), ("15min", "UTC")])
def test_times_ids_and_names_are_those_of_the_table(tmp_path, freq, zone):
    """Over the hour that a clock is set forward, from a frame and from its files: each forecast meets its row."""
    days = pd.date_range("2024-03-30", periods=40, freq=freq, tz=zone)
    parts = [pd.DataFrame({"unique_id": n, "ds": days, "y": np.arange(40.0) + 100 * n}) for n in (7, 30)]
    df, model = pd.concat(parts), naive_model()
    found = model.cross_validation(df, 3, 11).forecasts
    met = found.merge(df, on=["unique_id", "ds"])
    assert len(met) == len(found) == 66 and (met["target"] == met["y"]).all()
    before = found.merge(df, left_on=["unique_id", "cutoff"], right_on=["unique_id", "ds"])
    assert (before["predictions"] == before["y"] + 0.5).all()
    ahead = model.predict_df(df, prediction_length=1)
    assert (ahead.dtypes[["unique_id", "ds"]] == found.dtypes[["unique_id", "ds"]]).all()
    named = {"id_column": "unique_id", "timestamp_column": "ds", "target": "y"}
    for name in ("t.parquet", "t.csv"):
        write_table(df, tmp_path / name)
        by_file = model.cross_validation(tmp_path / name, 3, 11, **named).forecasts
        on_wall = (name, freq) == ("t.csv", "D")  # of which the reader says that it takes them as local times
        for column in ("ds", "cutoff"):
            expected = found[column].dt.tz_localize(None) if on_wall else found[column]
            assert (by_file[column] == expected).all()
    two = df.assign(store="a").rename(columns={"unique_id": "item"})
    assert [*model.cross_validation(two, 3, 2, id_column=["store", "item"]).forecasts][:3] == ["store", "item", "ds"]


@pytest.mark.parametrize(("theirs", "said"), [("item_id", "window"), ("timestamp", "cutoff"), ("item_id", "0.5")])
def test_a_column_of_the_table_is_not_written_over(tmp_path, theirs, said):
    df = frame().rename(columns={theirs: said})
    named = {"id_column" if theirs == "item_id" else "timestamp_column": said}
    write_table(df, tmp_path / "t.csv")
    for data in (df, tmp_path / "t.csv"):
        with pytest.raises(ValueError, match=f"a column of the forecasts is called '{said}' too"):
            naive_model().cross_validation(data, 4, 1, **named)


def test_steps_that_are_counted_are_told():
    found = naive_model().cross_validation(frame().assign(timestamp=[*range(100, 160)]), 4, 1)
    assert found.notes[-1] == "no times are stated, in dates and hours: timestamp and cutoff count the steps from 0."


def test_what_does_not_fit_is_said():
    model, df = naive_model(), frame()
    with pytest.raises(ValueError, match=r"df: the longest of its 2 series has 30 steps, .* horizon of 30 needs 31"):
        model.cross_validation(df, 30)
    short = pd.concat([df, df[df["item_id"] == "a"].assign(item_id="c").iloc[:5].sort_values("timestamp")])
    short.loc[short["item_id"] == "c", "timestamp"] = DAYS[:5]
    found = model.cross_validation(short, 4, 7)
    assert found.notes[-1] == "6 of 21 windows do not fit into their series, and are left out."
    hours = pd.DataFrame(
        {"item_id": "h", "timestamp": pd.date_range("2024-01-01", periods=30, freq="h"), "target": 1.0}
    )
    mixed = model.cross_validation(pd.concat([df, hours]), 4, 2).notes
    assert mixed[-1] == "the series are of several frequencies, D (2), h (1): a horizon is so many steps of each."
    with pytest.raises(TypeError, match="no option 'targt'. Did you mean 'target'"):
        model.cross_validation(df, 4, targt="x")
    with pytest.raises(ValueError, match="windows must be at least 1"):
        model.cross_validation(df, 4, 0)
    twice = pd.concat([df, df.iloc[:1]])
    with pytest.raises(ValueError, match=r"has 2024-.* twice"):
        model.cross_validation(twice, 4)
