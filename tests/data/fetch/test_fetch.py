"""Fetching against a small hub: what is downloaded, what is skipped, what goes on after a kill, what is refused."""

from __future__ import annotations

import os
import re
import shutil
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import FakeRepo

from foreloom.data.fetch import FetchEntry, Hub, HubUnreachable, choose, fetch, is_unfinished, plan_fetch, verify
from foreloom.data.formats.reader import open_source

A = FetchEntry("a", "owner/sets", "a", "a")
B = FetchEntry("b", "owner/sets", "b", "b")


def parquet(item_ids: list[str], seed: int) -> bytes:
    """A file as autogluon/chronos_datasets has them: id, timestamp and target, one series a row."""
    random = np.random.default_rng(seed)
    lengths = [40 + 10 * i for i in range(len(item_ids))]
    table = pa.table(
        {
            "id": item_ids,
            "timestamp": [np.arange(n).astype("datetime64[h]").astype("datetime64[ms]") for n in lengths],
            "target": [random.normal(size=n).astype(np.float32) for n in lengths],
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def sets(fake_hub) -> FakeRepo:
    """`a` of two Parquet files with a split that is not fetched, `b` of one, and a CSV."""
    repo = FakeRepo(
        {
            "README.md": b"card",
            "a/train-00000-of-00002.parquet": parquet(["x", "y"], 0),
            "a/train-00001-of-00002.parquet": parquet(["z"], 1),
            "a/test-00000-of-00001.parquet": parquet(["t"], 2),
            "b/train-00000-of-00001.parquet": parquet(["u"], 3),
            "plain/h1.csv": b"date,v\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n",
        },
        configs=[
            {
                "config_name": "a",
                "data_files": [{"split": "train", "path": "a/train-*"}, {"split": "test", "path": "a/test-*"}],
            }
        ],
    )
    fake_hub.repos["owner/sets"] = repo
    return repo


def test_a_fetched_folder_opens_and_is_not_fetched_again(sets, fake_hub, hub, tmp_path):
    lines = []
    csv = FetchEntry("h1", "owner/sets", "plain/h1.csv", "plain")
    report = fetch([A, B, csv], tmp_path, hub=hub, say=lines.append)
    assert report.fetched == ("a", "b", "h1") and not report.failed and not report.whole
    assert [line.split(":")[0] for line in lines] == [
        "a fetched (1 of 3)",
        "b fetched (2 of 3)",
        "h1 fetched (3 of 3)",
    ]
    wanted = [path for path in sets.files if path.startswith(("a/train", "b/", "plain/"))]
    assert report.num_bytes == sum(len(sets.files[path]) for path in wanted)
    for path in wanted:
        assert (tmp_path / path).read_bytes() == sets.files[path]
    assert sorted(os.listdir(tmp_path / "a")) == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]

    source = open_source(tmp_path / "a")
    assert len(source) == 3
    assert [source.read(i).item_id for i in range(3)] == ["x", "y", "z"]
    expected = pq.read_table(tmp_path / "a" / "train-00000-of-00002.parquet")["target"][1].as_py()
    np.testing.assert_array_equal(source.read(1).target_VT[0], np.float32(expected))
    assert open_source(tmp_path / "plain" / "h1.csv").read(0).length == 3

    fake_hub.requests.clear()
    again = fetch([A, B, csv], tmp_path, hub=hub)
    assert again.whole == ("a", "b", "h1") and not again.fetched and again.num_bytes == 0
    assert not fake_hub.requests, "whole data sets need no network"

    gone = "a/train-00001-of-00002.parquet"
    (tmp_path / gone).unlink()
    assert fetch([A], tmp_path, hub=hub).num_bytes == len(sets.files[gone])
    assert (tmp_path / gone).read_bytes() == sets.files[gone]


def test_overwrite_fetches_a_newer_version_and_leaves_nothing_of_the_old(sets, fake_hub, hub, tmp_path):
    fetch([A], tmp_path, hub=hub)
    newer = parquet(["x2"], 9)
    sets.files = {"a/train-00000-of-00001.parquet": newer}
    sets.revision = "b" * 40
    assert fetch([A], tmp_path, hub=hub).whole == ("a",), "a data set stays as it is until asked"
    (tmp_path / "a" / ".train-00000-of-00001.parquet.0123456789abcdef.part").write_bytes(b"of a version in between")
    report = fetch([A], tmp_path, overwrite=True, hub=hub)
    assert report.fetched == ("a",) and report.num_bytes == len(newer)
    assert os.listdir(tmp_path / "a") == ["train-00000-of-00001.parquet"]
    assert open_source(tmp_path / "a").read(0).item_id == "x2"
    assert all("b" * 40 in path for path in fake_hub.downloads()[2:]), "files are taken at the listed commit"


def test_a_dry_run_names_files_and_sizes_and_downloads_nothing(sets, fake_hub, hub, tmp_path):
    fetch([B], tmp_path / "root", hub=hub)
    fake_hub.requests.clear()
    unknown = FetchEntry("c", "owner/sets", "aa", "c")
    plan = plan_fetch([A, B, unknown], tmp_path / "root", hub=hub)
    assert not fake_hub.downloads() and not (tmp_path / "root" / "a").exists()
    size = sum(len(content) for path, content in sets.files.items() if path.startswith("a/train"))
    assert plan.num_bytes_missing == size and plan.whole == ("b",)
    text = "\n".join(plan.lines())
    assert f"to fetch into {tmp_path / 'root'}: 1 data set, {size / 1000:.1f} kB" in text
    assert "there already: b" in text
    assert "c: the hub's owner/sets has no configuration, folder or file 'aa'; it has a" in text
    not_yet = plan_fetch([A], tmp_path / "new" / "root", hub=hub)
    assert not_yet.sets and not (tmp_path / "new").exists()


def test_a_killed_fetch_goes_on_where_it_was(sets, fake_hub, hub, in_a_process, tmp_path):
    path = "a/train-00001-of-00002.parquet"
    content = sets.files[path] = np.random.default_rng(0).bytes(25 * 2**20)
    fake_hub.stall_after[path] = 23 * 2**20
    process = in_a_process(tmp_path, HF_ENDPOINT=fake_hub.url)
    deadline = time.monotonic() + 40
    while not (parts := list((tmp_path / "a").glob(".*.part"))) or parts[0].stat().st_size < 20 * 2**20:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (tmp_path / path).exists() and parts[0].stat().st_size == 20 * 2**20
    assert is_unfinished(tmp_path / "a"), "one of two files is no data set"
    fake_hub.num_bytes_served.clear()

    rest = len(content) - 20 * 2**20
    assert plan_fetch([A], tmp_path, hub=hub).num_bytes_missing == rest
    report = fetch([A], tmp_path, hub=hub)
    assert report.fetched == ("a",) and report.num_bytes == rest
    assert not is_unfinished(tmp_path / "a")
    assert fake_hub.num_bytes_served == {path: rest}, "the first file is whole, of the second the rest is served"
    assert (tmp_path / path).read_bytes() == content
    assert not list((tmp_path / "a").glob(".*"))


def test_a_dropped_connection_is_taken_up_again(sets, fake_hub, hub, tmp_path):
    path = "b/train-00000-of-00001.parquet"
    content = sets.files[path] = np.random.default_rng(0).bytes(12 * 2**20)
    fake_hub.cut_after[path] = 11 * 2**20
    try:
        report = fetch([B], tmp_path, hub=hub)
    except HubUnreachable:  # huggingface_hub 0 leaves it to the next call
        report = fetch([B], tmp_path, hub=hub)
    assert report.fetched == ("b",)
    assert (tmp_path / path).read_bytes() == content
    assert fake_hub.num_bytes_served[path] < 2 * len(content)


def test_an_update_that_was_cut_off_is_gone_on_with(sets, fake_hub, hub, tmp_path):
    fetch([A], tmp_path, hub=hub)
    path = "a/train-00001-of-00002.parquet"
    newer = parquet(["z"], 8)
    assert len(newer) == len(sets.files[path]), "sizes alone do not tell the versions apart"
    sets.files[path] = newer
    fake_hub.altered[path] = b"damaged"
    assert list(fetch([A], tmp_path, overwrite=True, hub=hub).failed) == ["a"] and is_unfinished(tmp_path / "a")
    fake_hub.altered.clear()
    assert fetch([A], tmp_path, hub=hub).fetched == ("a",) and not is_unfinished(tmp_path / "a")
    assert (tmp_path / path).read_bytes() == newer


def test_a_file_that_arrives_damaged_is_not_kept_and_the_others_are_fetched(sets, fake_hub, hub, tmp_path):
    path = "a/train-00000-of-00002.parquet"
    fake_hub.altered[path] = bytes(len(sets.files[path]))
    fake_hub.altered["plain/h1.csv"] = b"short"
    csv = FetchEntry("h1", "owner/sets", "plain/h1.csv", "plain")
    report = fetch([A, csv, B], tmp_path, hub=hub)
    assert report.fetched == ("b",)
    assert report.failed.keys() == {"a", "h1"}
    assert f"{path} of owner/sets arrived damaged" in report.failed["a"]
    assert os.listdir(tmp_path / "a") == [".a.unfinished"] and os.listdir(tmp_path / "plain") == [".h1.csv.unfinished"]

    fake_hub.altered.clear()
    part = plan_fetch([A], tmp_path, hub=hub).sets[0]
    begun = tmp_path / "a" / f".train-00000-of-00002.parquet.{part.files[path].checksum.digest[:16]}.part"
    begun.write_bytes(b"not how it begins")
    assert fetch([A], tmp_path, hub=hub).fetched == ("a",), "a part that was at fault is fetched from its beginning"
    assert (tmp_path / path).read_bytes() == sets.files[path]


def test_files_that_lie_there_are_compared_not_fetched(sets, fake_hub, hub, tmp_path):
    (tmp_path / "a").mkdir()
    for number, content in enumerate((sets.files["a/train-00000-of-00002.parquet"], b"another")):
        (tmp_path / f"a/train-0000{number}-of-00002.parquet").write_bytes(content)
    report = fetch([A], tmp_path, hub=hub)
    assert fake_hub.num_bytes_served.keys() == {"a/train-00001-of-00002.parquet"} and report.fetched == ("a",)


def test_verify_names_what_is_damaged_and_the_next_fetch_mends_it(sets, fake_hub, hub, tmp_path):
    csv = FetchEntry("h1", "owner/sets", "plain/h1.csv", "plain")
    fetch([A, csv], tmp_path, hub=hub)
    fake_hub.requests.clear()
    assert verify([A, csv], tmp_path).whole == ("a", "h1")

    first = tmp_path / "a" / "train-00000-of-00002.parquet"
    content = bytearray(first.read_bytes())
    content[100] ^= 1
    first.write_bytes(content)
    (tmp_path / "a" / "train-00001-of-00002.parquet").unlink()
    (tmp_path / "plain" / "h1.csv").write_bytes(b"date,v\n")
    report = verify([A, B, csv], tmp_path)
    assert not fake_hub.requests and report.absent == ("b",) and not report.whole
    assert [re.sub(".*/", "", sentence) for sentence in (*report.damaged["a"], *report.damaged["h1"])] == [
        "train-00000-of-00002.parquet has another checksum than the hub's file.",
        "train-00001-of-00002.parquet is missing.",
        "h1.csv has 7 B where the hub's file has 46 B.",
    ]
    assert fetch([A, csv], tmp_path, hub=hub).fetched == ("a", "h1")
    assert verify([A, csv], tmp_path).whole == ("a", "h1")


def test_a_full_disk_is_told_before_it_begins(sets, fake_hub, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match=r"kB are to be fetched, but only 1 B are free there\. Free some space"):
        fetch([A], tmp_path, hub=hub)
    assert not fake_hub.downloads()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_fills_up_names_the_file(sets, hub, tmp_path):
    planned = plan_fetch([B], tmp_path, hub=hub).sets[0]
    file = planned.files["b/train-00000-of-00001.parquet"]
    part = tmp_path / "b" / f".train-00000-of-00001.parquet.{file.checksum.digest[:16]}.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        fetch([B], tmp_path, hub=hub)
    assert error.value.filename == str(tmp_path / "b" / "train-00000-of-00001.parquet")


def test_repositories_that_are_not_given_are_told_apart(sets, fake_hub, hub, tmp_path):
    fake_hub.repos["owner/gated"] = FakeRepo({"a/x.csv": b"1"}, gated=True)
    fake_hub.repos["owner/closed"] = FakeRepo({"a/x.csv": b"1"}, token="secret")
    elsewhere = [FetchEntry(name, f"owner/{name}", "a", name) for name in ("gated", "closed", "nowhere")]
    report = fetch([*elsewhere, FetchEntry("unnamed", "no/such/name", "a", "a"), B], tmp_path, hub=hub)
    assert report.fetched == ("b",)
    assert "'no/such/name' is not the name of a data set of the hub" in report.failed["unnamed"]
    assert "asks for its terms to be accepted" in report.failed["gated"] and "HF_TOKEN" in report.failed["gated"]
    assert "HF_TOKEN" in report.failed["closed"]
    assert "owner/nowhere does not exist, or is private" in report.failed["nowhere"]
    assert f"not fetched: nowhere: {fake_hub.url}" in "\n".join(report.lines())


def test_an_ill_or_absent_hub_ends_the_fetch_with_a_sentence(sets, fake_hub, hub, tmp_path):
    with pytest.raises(HubUnreachable, match="cannot be reached .*HTTPS_PROXY .*HF_ENDPOINT.*copy the folder"):
        fetch([A], tmp_path, hub=Hub(endpoint="http://127.0.0.1:9"))
    fake_hub.status = 501
    with pytest.raises(HubUnreachable, match=r"owner/sets answers 501\. Try again later"):
        fetch([A], tmp_path, hub=hub)


def test_one_process_at_a_time(sets, fake_hub, hub, in_a_process, tmp_path):
    fake_hub.stall_after["a/train-00000-of-00002.parquet"] = 10
    process = in_a_process(tmp_path, HF_ENDPOINT=fake_hub.url)
    while not fake_hub.downloads():
        assert process.poll() is None
        time.sleep(0.02)
    with pytest.raises(ValueError, match="another process is fetching into this folder"):
        fetch([B], tmp_path, hub=hub)
    process.kill()
    process.communicate()
    assert fetch([B], tmp_path, hub=hub).fetched == ("b",)


def test_choose_by_name():
    assert choose([A, B], []) == [A, B]
    assert choose([A, B], ["b"]) == [B]
    long = FetchEntry("m4_hourly", "owner/sets", "m4_hourly", "m4_hourly")
    with pytest.raises(ValueError, match=r"'m4_hour' \(did you mean m4_hourly\?\), 'q'\. The data sets are m4_hourly"):
        choose([long], ["m4_hour", "q"])
    with pytest.raises(ValueError, match="not below the data root"):
        FetchEntry("x", "owner/sets", "x", "../x")


def test_a_damaged_record_is_named(sets, hub, tmp_path):
    fetch([B], tmp_path, hub=hub)
    record = tmp_path / ".fetched" / "b" / "b.json"
    record.write_text("{")
    with pytest.raises(ValueError, match=r"b\.json: damaged .* Delete this file and fetch again"):
        fetch([B], tmp_path, hub=hub)


def test_two_data_sets_are_never_mixed_in_one_folder(sets, fake_hub, hub, tmp_path):
    fetch([B], tmp_path, hub=hub)
    with pytest.raises(ValueError, match=r"/b holds b of owner/sets, not b of other/sets\. Fetch into another folder"):
        fetch([FetchEntry("b", "other/sets", "b", "b")], tmp_path, hub=hub)
