"""The LTSF protocol: windows as the official evaluation cuts them, splits, scaling, and what it says of bad tables."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from foreloom.data.formats.reader import open_source
from foreloom.evaluation.baselines import Naive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.ltsf import default_context, read_ltsf, split_of
from foreloom.evaluation.plan import plan_windows, window_reader
from foreloom.evaluation.sliding import raw_task


def table(num_rows=100, start="2024-01-01", freq="h", **columns):
    rng = np.random.default_rng(0)
    columns = columns or {"a": rng.normal(3, 2, num_rows), "b": rng.normal(-50, 9, num_rows)}
    return pd.DataFrame({"date": pd.date_range(start, periods=num_rows, freq=freq), **columns})


@pytest.fixture
def write(tmp_path):
    def to_file(df, name="some.csv"):
        df.to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return to_file


def score(forecaster, task):
    return evaluate(forecaster, [task]).tasks[0]


def windows_of(task):
    """The plan of a task, and a function that reads one of its windows."""
    plan = plan_windows(task, task.open(), 10**6, 256)
    read = window_reader(plan)
    return plan, lambda n: read(range(n, n + 1))[0]


def check_windows(task, oracle):
    """Contexts and labels of the oracle's windows, by their number."""
    _, read = windows_of(task)
    for number, context, label in zip(oracle["index"], oracle["inputs"], oracle["labels"], strict=True):
        window = read(int(number))
        np.testing.assert_allclose(window.input.context_RC[0], context, atol=1e-6)
        np.testing.assert_allclose(window.label_VH[0], label, atol=1e-6)


def test_windows_of_etth1_are_those_of_the_official_evaluation(shared):
    oracle = shared / "oracles" / "time_moe" / "eval"
    etth1 = read_ltsf(shared / "data" / "ltsf_csv" / "ETTh1.csv")
    assert (etth1.season_length, len(etth1.channels)) == (24, 7)
    for key, expected in json.loads((oracle / "results.json").read_text()).items():
        if key.startswith("ETTh1_windows"):
            horizon, context = (int(part[1:]) for part in key.split("_")[2:])
            assert default_context(horizon) == context
            task = etth1.task(horizon, protocol="timemoe")
            plan, _ = windows_of(task)
            assert (plan.num_windows, task.context_length) == (expected["num_windows"], context)
            assert np.bincount(plan.item_N).tolist() == [expected["windows_per_channel"]] * 7
            assert windows_of(etth1.task(horizon))[0].num_windows == expected["num_windows"] + 7
    check_windows(etth1.task(96, protocol="timemoe"), np.load(oracle / "etth1_p96_c512_windows.npz"))


def test_windows_of_other_data_are_those_of_the_official_evaluation(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path))
    oracle = shared / "oracles" / "time_moe" / "eval"
    toy = read_ltsf(oracle / "toy.csv").task(24, 64, "timemoe")
    assert windows_of(toy)[0].num_windows == 288
    check_windows(toy, np.load(oracle / "toy_windows.npz"))
    general = raw_task(open_source(oracle / "general.jsonl"), 25, 64, "timemoe")
    expected = np.load(oracle / "general_windows.npz")
    plan, _ = windows_of(general)
    found = [(item, cut + 25) for item, cut in zip(plan.item_N.tolist(), plan.cut_N.tolist(), strict=True)]
    assert plan.num_windows == 32
    assert found == list(map(tuple, expected["all_pairs"].tolist()))
    check_windows(general, expected)


def test_splits():
    assert split_of("data/ETTh2.csv", 17420) == (8640, 11520, 14400)
    assert split_of("ettm1-copy.csv", 69680) == (34560, 46080, 57600)
    assert split_of("weather.csv", 101) == (70, 81, 101)
    with pytest.raises(ValueError, match=r"ETTh1.csv: .*12, 4 and 4 months of 720 rows, but it has 9,000 rows of 14,4"):
        split_of("ETTh1.csv", 9000)


def test_scaled_by_the_training_rows_only(write):
    df = table()
    df.loc[70:, "a"] += 1000
    df["constant"] = 5.0
    df.loc[99, "constant"] = 7.0
    df["inexact"] = 20.3  # whose deviation over 70 rows is 3.6e-15
    df.loc[99, "inexact"] = 22.3
    a, b, constant, inexact = (one.target_VT[0] for one in read_ltsf(write(df)).channels)
    train = df["a"][:70].to_numpy()
    np.testing.assert_allclose(a, (df["a"] - train.mean()) / train.std(ddof=0), rtol=1e-6)
    assert a.dtype == np.float32
    assert abs(b[:70].std() - 1) < 1e-5
    np.testing.assert_array_equal(constant, [0.0] * 99 + [2.0])
    np.testing.assert_allclose(inexact, constant, atol=1e-13)


def test_the_first_label_is_the_first_test_row_and_the_last_one_the_last(write):
    df = table(a=np.arange(100.0))
    plan, read = windows_of(read_ltsf(write(df)).task(4, 10))
    scale = np.arange(70).std()
    labels = np.concatenate([read(n).label_VH for n in range(plan.num_windows)])
    np.testing.assert_allclose(labels[:, 0] * scale + 34.5, np.arange(80, 97), rtol=1e-5)
    np.testing.assert_allclose(labels[-1] * scale + 34.5, [96, 97, 98, 99], rtol=1e-5)


def test_missing_cells_are_missing_values(write):
    df = table()
    df.loc[[3, 75, 90], "a"] = np.nan
    whole, holey = read_ltsf(write(table(), "whole.csv")), read_ltsf(write(df))
    assert np.flatnonzero(np.isnan(holey.channels[0].target_VT[0])).tolist() == [3, 75, 90]
    assert not np.isnan(holey.channels[1].target_VT[0]).any()
    result = score(Naive(), holey.task(5, 8))
    assert result.sums.num_points == 2 * 16 * 5 - 5
    assert np.isfinite(result.scores["MSE"])
    assert score(Naive(), whole.task(5, 8)).sums.num_points == 2 * 16 * 5


@pytest.mark.parametrize(
    ("freq", "season"), [("h", 24), ("15min", 96), ("10min", 144), ("D", 1), ("MS", 12), ("W", 1), ("2h", 12)]
)
def test_the_season_is_that_of_the_dates(write, freq, season):
    assert read_ltsf(write(table(freq=freq))).season_length == season
    assert read_ltsf(write(table(freq=freq)), season_length=7).season_length == 7


def test_a_gap_in_the_dates_leaves_the_common_step(write):
    df = table(120, freq="15min").drop(index=range(50, 60))
    with pytest.warns(UserWarning, match="not one step .15min. after the row above"):
        assert read_ltsf(write(df)).season_length == 96


def test_channels_and_date_column(write):
    path = write(table().rename(columns={"date": "when"}))
    assert [c.item_id for c in read_ltsf(path, date_column="when", channels=["b"]).channels] == ["b"]
    with pytest.raises(ValueError, match="first column is 'when', not 'date'; the columns are when, a, b.*--date-col"):
        read_ltsf(path)
    long = write(table().assign(item_id="x").iloc[:, [3, 0, 1]], "long.csv")
    with pytest.raises(ValueError, match=r"is a long table .* item_id, date, a\), .*--target .*--tasks"):
        read_ltsf(long)
    with pytest.raises(ValueError, match="no column 'whn'; the columns are when, a, b"):
        read_ltsf(path, date_column="whn")
    with pytest.raises(ValueError, match=r"no column 'bb'; the channels are a, b. Did you mean 'b'\?"):
        read_ltsf(path, date_column="when", channels=["a", "bb"])
    with pytest.raises(ValueError, match="no column beside 'date'"):
        read_ltsf(write(table()[["date"]], "dates.csv"))


def test_bad_tables_are_named_by_row_and_column(write, tmp_path):
    df = table().astype({"a": object})
    df.loc[4, "a"] = "lots"
    with pytest.raises(ValueError, match="some.csv: column 'a' holds 'lots' in row 6, where a number.*--channels"):
        read_ltsf(write(df))
    assert len(read_ltsf(write(df), channels=["b"]).channels) == 1
    df = table().astype({"date": str})
    df.loc[7, "date"] = "soon"
    with pytest.raises(ValueError, match="column 'date' holds 'soon' in row 9, which is not a time"):
        read_ltsf(write(df))
    with pytest.raises(ValueError, match="row 3 lies before the row above it"):
        read_ltsf(write(table().iloc[::-1]))
    with pytest.raises(ValueError, match="'a' holds no value in the 70 training rows"):
        read_ltsf(write(table(a=[np.nan] * 80 + [1.0] * 20)))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="empty.csv cannot be read as a table"):
        read_ltsf(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match="some.csv has 0 rows"):
        read_ltsf(write(table()[:0]))
    with pytest.raises(ValueError, match="no file .*nowhere.csv"):
        read_ltsf(tmp_path / "nowhere.csv")


def test_dates_that_are_no_consecutive_steps_are_told(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [read_ltsf(write(table(freq=freq))).season_length for freq in ("h", "B", "MS")] == [24, 5, 12]
    gap = r"some.csv: 1 of 97 rows are not one step \({}\) after the row above, the first in row 12 .*--fill-gaps"
    for freq in ("h", "B", "MS"):
        with pytest.warns(UserWarning, match=gap.format(freq)):
            read_ltsf(write(table(freq=freq).drop([10, 11, 12])))
    with pytest.warns(UserWarning, match=r"1 of 201 rows are not one step \(h\) .* the first in row 13"):  # set back
        read_ltsf(write(pd.concat([table(200)[:11], table(200)[10:]])))
    two = table().assign(shop=1), table().assign(shop=2)
    for several in (pd.concat(two), pd.concat(two).sort_values("date"), pd.concat([two[0], two[1][:3]])):
        with pytest.raises(ValueError, match=r"2024-01-01 00:00:00 stands in it twice .*--id-column shop"):
            read_ltsf(write(several))


def test_too_few_rows_for_a_horizon_is_a_sentence_with_the_numbers(write):
    some = read_ltsf(write(table()))
    assert windows_of(some.task(20, 5))[0].num_windows == 2
    with pytest.raises(ValueError, match=r"horizon of 20 steps needs 21 test rows \(protocol timemoe\), the last 20"):
        some.task(20, 5, "timemoe")
    with pytest.raises(ValueError, match="horizon of 21 steps needs 21 test rows"):
        some.task(21, 5)
    with pytest.raises(ValueError, match="context of 96 steps does not fit .* after row 80 of 100"):
        some.task(24)


def test_infinite_values_are_missing_ones(write):
    df = table(a=np.sin(np.arange(100.0)))
    whole = read_ltsf(write(df)).channels[0].target_VT[0]
    df.loc[[3, 90], "a"] = np.inf, -np.inf
    (channel,) = read_ltsf(write(df, "infinite.csv")).channels
    assert np.flatnonzero(np.isnan(channel.target_VT[0])).tolist() == [3, 90]
    np.testing.assert_allclose(channel.target_VT[0][4:90], whole[4:90], atol=0.05)
