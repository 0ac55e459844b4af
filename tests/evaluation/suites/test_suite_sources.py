"""What is fetched for a suite lies where the suite is looked for, each data set once."""

from __future__ import annotations

import pytest

from foreloom.evaluation.suites import find_data, load, names
from foreloom.evaluation.suites.fetch import FetchEntry, fetch_entries


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
