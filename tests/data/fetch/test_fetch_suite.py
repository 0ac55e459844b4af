"""From the hub to published scores: a suite's data sets in the hub's layouts are fetched, found, opened and scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import FakeRepo

from foreloom.data.fetch import choose, fetch
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.suites import load, missing_sentence, suite_tasks
from foreloom.evaluation.suites.sources import fetch_entries
from foreloom.report.fetching import fetch_and_print


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


def test_the_verb(fake_hub, hub, tmp_path, capsys):
    """What it prints and whether all is well, for every option."""
    content = b"date,v\n2020-01-01,1\n"
    fake_hub.repos["thuml/Time-Series-Library"] = FakeRepo({"ETT-small/ETTh1.csv": content})
    file = tmp_path / "Time-Series-Library" / "ETT-small" / "ETTh1.csv"

    def verb(*only: str, **options: bool) -> tuple[bool, str]:
        good = fetch_and_print("ltsf", tmp_path, only=only, hub=hub, **options)
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
    with pytest.raises(ValueError, match="exclude one another"):
        verb(dry_run=True, overwrite=True)
    with pytest.raises(ValueError, match=r"'ETTh3' \(did you mean"):
        verb("ETTh3")
