"""Suites over what lies below a data root, in the layouts that others use; what is missing is named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom.data.formats.reader import open_source
from foreloom.evaluation import suites
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.plan import plan_windows
from foreloom.evaluation.published import published_rows


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path_factory.mktemp("cache")))


def save_parquet(folder, **columns):
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "train-00000-of-00001.parquet")
    return folder


def save_to_disk(folder, **columns):
    """As `datasets.Dataset.save_to_disk` lays files out."""
    folder.mkdir(parents=True)
    table = pa.table(columns)
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    return folder


def hours(length, start="2023-12-01"):
    return (np.datetime64(start, "us") + np.arange(length) * np.timedelta64(1, "h")).tolist()


@pytest.mark.parametrize(("suite", "board"), [("chronos-full", "chronos"), ("gift-eval", "gift-eval")])
def test_seasonal_naive_of_the_pack_equals_the_published_scores(shared, suite, board):
    tasks, missing = suites.suite_tasks(suite, shared / "data")
    assert len(tasks) == {"chronos-full": 14, "gift-eval": 11}[suite]
    assert len(tasks) + len(missing) == len(suites.load(suite).tasks)
    published = {row["task"]: row for row in published_rows(board) if row["model"] == "seasonal-naive"}
    for task in evaluate(SeasonalNaive(), tasks).tasks:
        assert task.scores["MASE"] == pytest.approx(published[task.name]["MASE"], rel=2e-6), task.name
        if board == "chronos":  # GIFT-Eval's Seasonal Naive forecasts a distribution
            assert task.scores["WQL"] == pytest.approx(published[task.name]["WQL"], rel=2e-6), task.name


def test_seasonal_naive_of_the_pack_on_fev_bench(shared):
    tasks, _ = suites.suite_tasks("fev-bench", shared / "data")
    assert {task.name for task in tasks} == {"ETT_1H", "ETT_15T"}
    published = {row["task"]: row for row in published_rows("fev-bench") if row["model"] == "seasonal-naive"}
    for task in evaluate(SeasonalNaive(), tasks).tasks:
        for metric in ("MASE", "WAPE"):  # fev's Seasonal Naive forecasts a distribution, its median is ours
            assert task.scores[metric] == pytest.approx(published[task.name][metric], rel=1e-5), (task.name, metric)


def test_layouts_below_the_root_and_what_is_missing(tmp_path):
    save_to_disk(tmp_path / "nn5", id=["a"], target=[list(range(100))])
    save_parquet(tmp_path / "chronos_datasets" / "monash_weather", id=["a"], target=[list(range(60))])
    suite = suites.load("chronos-lite")
    tasks, missing = suites.suite_tasks("chronos-lite", tmp_path)
    assert {task.name: task.paths for task in tasks} == {
        "nn5": (tmp_path / "nn5",),
        "monash_weather": (tmp_path / "chronos_datasets" / "monash_weather",),
    }
    assert missing == ["m4_hourly", "m4_monthly", "exchange_rate"]
    sentence = suites.missing_sentence(suite, missing, tmp_path)
    assert sentence == (
        f"3 of the 5 tasks of chronos-lite have no data below {tmp_path}: m4_hourly, m4_monthly, exchange_rate. "
        f"Fetch it with: foreloom data fetch chronos-lite --out {tmp_path}"
    )
    assert suites.missing_sentence(suite, [], tmp_path) == ""


def test_a_half_fetched_set_is_missing(tmp_path):
    folder = save_parquet(tmp_path / "chronos_datasets" / "m4_hourly", id=["x"], target=[[1.0, 2.0] * 40])
    suite = suites.load("chronos-full")
    assert [found.task.name for found in suites.find_data(suite, tmp_path)[0]] == ["m4_hourly"]
    (folder / ".m4_hourly.unfinished").touch()
    assert not suites.find_data(suite, tmp_path)[0]


def test_half_of_a_pooled_set_is_missing(tmp_path):
    save_parquet(tmp_path / "etth1", id=["a"], target=[list(range(60))])
    tasks, missing = suites.suite_tasks("chronos-zero-shot", tmp_path)
    assert not tasks
    assert "ETTh" in missing


def test_gift_eval_counts_its_windows_and_has_a_variable_of_its_own(tmp_path, monkeypatch):
    save_to_disk(tmp_path / "ett1" / "H", item_id=["a", "b"], target=[list(range(2000)), list(range(1950))])
    save_to_disk(tmp_path / "m4_hourly", item_id=["a"], target=[list(range(2000))])
    save_to_disk(tmp_path / "us_births" / "M", item_id=["a"], target=[list(range(40))])
    monkeypatch.setenv("GIFT_EVAL", str(tmp_path))
    tasks, _ = suites.suite_tasks("gift-eval")
    assert {task.name: (task.prediction_length, task.num_rolls) for task in tasks} == {
        "ett1/H/long": (720, 1),
        "ett1/H/medium": (480, 1),
        "ett1/H/short": (48, 5),  # 195 steps are four windows and a bit
        "m4_hourly/H/short": (48, 1),
        "us_births/M/short": (12, 1),
    }


def test_a_root_must_be_named_and_there(tmp_path, monkeypatch):
    monkeypatch.delenv("GIFT_EVAL", raising=False)
    with pytest.raises(ValueError, match="gift-eval: say where its data sets lie with --data-root, or set GIFT_EVAL"):
        suites.suite_tasks("gift-eval")
    with pytest.raises(ValueError, match="nowhere: there is no such folder. Fetch the data with: foreloom data fetch"):
        suites.suite_tasks("gift-eval", tmp_path / "nowhere")


def test_every_column_of_numbers_is_a_series_where_none_is_the_target(tmp_path):
    stamps = [hours(60), hours(50)]
    save_parquet(
        tmp_path / "ercot",
        id=["a", "b"],
        timestamp=stamps,
        north=[list(range(60)), list(range(50))],
        south=[[100.0 + t for t in range(60)], [None] + [200.0 + t for t in range(49)]],
        region=["x", "y"],
    )
    (task,), _ = suites.suite_tasks("chronos-zero-shot", tmp_path)
    source = open_source(task.paths[0])
    series = source.read(1)
    assert source.lengths.tolist() == [60, 50]
    assert (series.item_id, series.freq, series.start) == ("b", "h", np.datetime64("2023-12-01"))
    assert series.target_VT[0].tolist() == list(range(50))
    assert np.isnan(series.target_VT[1, 0]) and series.target_VT[1, 1:].tolist() == [200.0 + t for t in range(49)]
    result = evaluate(SeasonalNaive(), [task]).tasks[0]
    assert (result.sums.num_windows, result.scores["MAE"]) == (4, 24.0)


def test_named_columns_get_their_roles(tmp_path):
    listed = suites.load("fev-bench").task("rossmann_1D")
    ahead = {name: [[float(t % 7) for t in range(300)]] for name in listed.future}
    save_parquet(
        tmp_path / "rossmann_1D",
        id=["a"],
        timestamp=[hours(300)],
        Sales=[[float(t) for t in range(300)]],
        Customers=[[1] * 300],
        **{**ahead, "StateHoliday": [["none", None] * 150]},
        **{name: ["x"] for name in listed.static},
    )
    (task,), _ = suites.suite_tasks("fev-bench", tmp_path)
    series = open_source(task.paths[0]).read(0)
    assert task.covariates and task.variates == "split"
    assert series.target_VT.tolist() == [[float(t) for t in range(300)]]
    assert set(series.future) == set(listed.future)
    assert series.future["Promo"].tolist() == ahead["Promo"][0]
    assert series.future["StateHoliday"][:2].tolist() == ["none", None]
    assert set(series.past) == {"Customers"}
    assert set(series.static) == set(listed.static)


def test_a_column_that_is_not_there_is_named(tmp_path):
    save_parquet(tmp_path / "ETT_1D", id=["a"], HUFL=[[1.0, 2.0]])
    with pytest.raises(ValueError, match="task 'ETT_1D' needs the columns HULL, MUFL, MULL, LUFL, LULL, OT; those"):
        suites.suite_tasks("fev-bench", tmp_path)


def test_windows_that_begin_at_a_date(tmp_path):
    days = (np.datetime64("2023-11-20", "us") + np.arange(60) * np.timedelta64(1, "D")).tolist()
    listed = suites.load("fev-bench").task("rohlik_sales_1D")
    columns = {name: [[1.0] * 60, [1.0] * 20] for name in (*listed.future, *listed.past)}
    save_parquet(
        tmp_path / "rohlik_sales_1D",
        id=["long", "late"],
        timestamp=[days, days[20:40]],
        sales=[[float(t) for t in range(60)], [float(t) for t in range(20)]],
        **columns,
        **{name: ["x", "y"] for name in listed.static},
    )
    (task,), _ = suites.suite_tasks("fev-bench", tmp_path)
    source = open_source(task.paths[0])
    # 2023-12-15 is day 25 of the first series, and day 5 of the second, which has too short a past.
    plan = plan_windows(task, [source], 1000, 256)
    assert list(zip(plan.item_N.tolist(), plan.cut_N.tolist(), strict=True)) == [(0, 26)]
    result = evaluate(SeasonalNaive(), [task]).tasks[0]
    assert (result.num_series, int(result.sums.num_windows)) == (1, 1)


def test_ltsf_finds_its_files_and_is_no_list_of_windows(tmp_path):
    (tmp_path / "ETTh1.csv").write_text("date,OT\n")
    (tmp_path / "weather").mkdir()
    (tmp_path / "weather" / "weather.csv").write_text("date,OT\n")
    found, missing = suites.find_data(suites.load("ltsf"), tmp_path)
    assert {one.task.name: one.paths for one in found}["Weather-720"] == (tmp_path / "weather" / "weather.csv",)
    assert (len(found), len(missing)) == (8, 28)
    with pytest.raises(ValueError, match="ltsf: this suite scores scaled values"):
        suites.suite_tasks("ltsf", tmp_path)
