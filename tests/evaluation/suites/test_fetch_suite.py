"""From the hub to published scores: a suite's data sets in the hub's layouts are fetched, found, opened and scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import FakeRepo

from foreloom.cli.data import _fetched
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.suites import find_data, load, missing_sentence, names, suite_tasks
from foreloom.evaluation.suites.fetch import FetchEntry, choose, fetch, fetch_entries, verify


@pytest.mark.parametrize("name", names())
def test_fetched_data_is_found(name, tmp_path):
    suite = load(name)
    entries = fetch_entries(suite)
    assert len({entry.name for entry in entries}) == len(entries), "--only names one data set"
    for entry in entries:
        folder = tmp_path / entry.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / (entry.config.rpartition("/")[2] if entry.config.endswith(".csv") else "x.parquet")).touch()
    found, missing = find_data(suite, tmp_path)
    assert not missing and len(found) == len(suite.tasks)
    assert all(path.is_relative_to(tmp_path) for one in found for path in one.paths)


def test_entries_name_the_hub():
    full = {entry.name: entry for entry in fetch_entries(load("chronos-full"))}
    assert full["m4_hourly"] == FetchEntry(
        "m4_hourly", "autogluon/chronos_datasets", "m4_hourly", "chronos_datasets/m4_hourly"
    )
    assert full["ETTh"] == FetchEntry("ETTh", "autogluon/fev_datasets", "ETT_1H", "chronos_datasets_extra/ETTh")
    gift = [entry.folder for entry in fetch_entries(load("gift-eval"))]
    assert gift.count("GiftEval/ett1/15T") == 1
    ltsf = fetch_entries(load("ltsf"))
    assert [entry.name for entry in ltsf if "ETT" in entry.name] == ["ETTh1", "ETTh2", "ETTm1", "ETTm2"]
    assert len(ltsf) == 9 and ltsf[0].folder == "Time-Series-Library/ETT-small"


def as_on_the_hub(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def m4_hourly(data: Path) -> bytes:
    """Configuration m4_hourly of autogluon/chronos_datasets: id, timestamp and target."""
    rows = pq.read_table(data / "m4_hourly" / "data.parquet", columns=["item_id", "start", "target"]).to_pylist()
    stamps = [pd.date_range(row["start"], periods=len(row["target"]), freq="h").to_numpy() for row in rows]
    ids, targets = [row["item_id"] for row in rows], [row["target"] for row in rows]
    return as_on_the_hub(pa.table({"id": ids, "timestamp": stamps, "target": targets}))


def ett_1h(data: Path) -> bytes:
    """Configuration ETT_1H of autogluon/fev_datasets: a row a transformer, a column of lists a variate."""
    frames = [pd.read_csv(data / "ltsf_csv" / f"ETTh{number}.csv", parse_dates=["date"]) for number in (1, 2)]
    columns = {name: [frame[name].to_numpy(np.float32) for frame in frames] for name in frames[0].columns[1:]}
    stamps = [frame["date"].to_numpy("datetime64[ms]") for frame in frames]
    return as_on_the_hub(pa.table({"id": ["ETTh1", "ETTh2"], "timestamp": stamps, **columns}))


def test_what_is_fetched_scores_as_published(shared, fake_hub, hub, tmp_path):
    data = shared / "data"
    fake_hub.repos["autogluon/chronos_datasets"] = FakeRepo(
        {"m4_hourly/train-00000-of-00001.parquet": m4_hourly(data)},
        configs=[{"config_name": "m4_hourly", "data_files": [{"split": "train", "path": "m4_hourly/train-*"}]}],
    )
    fake_hub.repos["autogluon/fev_datasets"] = FakeRepo(
        {"ETT/1H/train-00000-of-00001.parquet": ett_1h(data)},
        configs=[{"config_name": "ETT_1H", "data_files": [{"split": "train", "path": "ETT/1H/train-*"}]}],
    )
    suite = load("chronos-full")
    report = fetch(choose(fetch_entries(suite), ["m4_hourly", "ETTh"]), tmp_path, hub=hub)
    assert report.fetched == ("m4_hourly", "ETTh") and not report.failed
    fake_hub.requests.clear()

    tasks, missing = suite_tasks("chronos-full", tmp_path)
    assert [task.name for task in tasks] == ["m4_hourly", "ETTh"] and len(missing) == 40
    assert f"foreloom data fetch chronos-full --out {tmp_path}" in missing_sentence(suite, missing, tmp_path)
    scores = [task.scores for task in evaluate(SeasonalNaive(), tasks).tasks]
    assert [score["MASE"] for score in scores] == pytest.approx([1.193211, 0.931620], abs=1e-5)
    assert [score["WQL"] for score in scores] == pytest.approx([0.048309, 0.122090], abs=1e-5)
    assert not fake_hub.requests, "evaluation never asks the hub"


def test_half_fetched_or_damaged_is_not_there(fake_hub, hub, tmp_path):
    """A folder (`m4_hourly`) and a file (`ETTh1.csv`), each of a suite of its own."""
    fake_hub.repos["autogluon/chronos_datasets"] = FakeRepo({"m4_hourly/x.parquet": b"x", "m4_hourly/y.parquet": b"y"})
    fake_hub.repos["thuml/Time-Series-Library"] = FakeRepo({"ETT-small/ETTh1.csv": b"date,v\n2020-01-01,1\n"})
    folder = choose(fetch_entries(load("chronos-full")), ["m4_hourly"])
    file = choose(fetch_entries(load("ltsf")), ["ETTh1"])

    def is_there() -> tuple[bool, bool]:
        found = [find_data(load(name), tmp_path)[0] for name in ("chronos-full", "ltsf")]
        return tuple(bool(one) for one in found)

    fake_hub.altered["m4_hourly/y.parquet"] = b"z"
    report = fetch([*folder, *file], tmp_path, hub=hub)
    assert report.fetched == ("ETTh1",) and (tmp_path / "chronos_datasets/m4_hourly/x.parquet").exists()
    assert is_there() == (False, True)
    fake_hub.altered.clear()
    fetch(folder, tmp_path, hub=hub)
    assert is_there() == (True, True)
    for damaged in ("chronos_datasets/m4_hourly/x.parquet", "Time-Series-Library/ETT-small/ETTh1.csv"):
        (tmp_path / damaged).write_bytes(b"!")
    verify([*folder, *file], tmp_path)
    assert is_there() == (False, False)
    assert fetch([*folder, *file], tmp_path, hub=hub).fetched == ("m4_hourly", "ETTh1")
    assert is_there() == (True, True)


def test_the_verb(fake_hub, hub, tmp_path, capsys):
    """What it prints and whether all is well, for every option."""
    content = b"date,v\n2020-01-01,1\n"
    fake_hub.repos["thuml/Time-Series-Library"] = FakeRepo({"ETT-small/ETTh1.csv": content})
    file = tmp_path / "Time-Series-Library" / "ETT-small" / "ETTh1.csv"

    def verb(*only: str, **options: bool) -> tuple[bool, str]:
        good = _fetched("ltsf", tmp_path, only=only, hub=hub, **options)
        return good, capsys.readouterr().out

    good, text = verb("ETTh1", dry_run=True)
    assert good and not file.exists() and "ETTh1      20 B  thuml/Time-Series-Library" in text
    assert verb("ETTh1", check=True) == (False, "0 whole, 0 damaged, 1 not fetched\nnot fetched: ETTh1\n")
    good, text = verb("ETTh1")
    assert good and file.read_bytes() == content
    text_of_fetch = "ETTh1 fetched (1 of 1): 20 B\nfetched 1 data set (20 B); 0 there already\n"
    assert text == text_of_fetch
    assert verb("ETTh1") == (True, "fetched 0 data sets (0 B); 1 there already\n")
    assert verb("ETTh1", check=True) == (True, "1 whole, 0 damaged, 0 not fetched\n")
    file.write_bytes(content[:-1] + b"2")
    good, text = verb("ETTh1", check=True)
    assert not good and f"damaged: ETTh1: {file} has another checksum than the hub's file." in text
    assert verb("ETTh1")[0] and file.read_bytes() == content, "what a check finds damaged is fetched again"
    assert verb("ETTh1", overwrite=True) == (True, text_of_fetch)
    good, text = verb("ETTh1", "ETTh2")
    assert not good and "not fetched: ETTh2: the hub's thuml/Time-Series-Library has no" in text
    with pytest.raises(ValueError, match="ETTh1.csv is a file; --out names the data root, a folder"):
        _fetched("ltsf", file, hub=hub)
    with pytest.raises(ValueError, match="exclude one another"):
        verb(dry_run=True, overwrite=True)
    with pytest.raises(ValueError, match=r"'ETTh3' \(did you mean"):
        verb("ETTh3")
