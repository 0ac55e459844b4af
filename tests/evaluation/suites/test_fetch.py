"""Fetching against a small hub: what is downloaded, what is skipped, what goes on after a kill, what is refused."""

from __future__ import annotations

import os
import re
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import FakeRepo
from huggingface_hub import HfApi

from foreloom.data.formats.reader import open_source
from foreloom.evaluation.suites.fetch import FetchEntry, choose, fetch, is_unfinished, plan_fetch, verify
from foreloom.evaluation.suites.repository import HubUnreachable

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


def kill_in_the_middle(process, folder, num_bytes: int) -> None:
    """Kill a fetch into `folder` once the file that arrives there has so many bytes."""
    deadline = time.monotonic() + 40
    while sum(path.stat().st_size for path in folder.rglob("*.incomplete")) < num_bytes:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()


def test_a_killed_fetch_goes_on_by_file(sets, fake_hub, hub, in_a_process, tmp_path):
    path = "a/train-00001-of-00002.parquet"
    content = sets.files[path] = np.random.default_rng(0).bytes(25 * 2**20)
    fake_hub.stall_after[path] = 23 * 2**20
    kill_in_the_middle(in_a_process(tmp_path, HF_ENDPOINT=fake_hub.url), tmp_path / "a", 20 * 2**20)
    whole = tmp_path / "a" / "train-00000-of-00002.parquet"
    assert whole.exists() and not (tmp_path / path).exists()
    assert is_unfinished(tmp_path / "a"), "one of two files is no data set"
    assert verify([A], tmp_path).damaged == {"a": (f"{tmp_path / path} is missing.",)}
    fake_hub.num_bytes_served.clear()
    written = whole.stat().st_mtime_ns

    assert plan_fetch([A], tmp_path, hub=hub).num_bytes_missing == len(content)
    report = fetch([A], tmp_path, hub=hub)
    assert report.fetched == ("a",) and report.num_bytes == len(content)
    assert not is_unfinished(tmp_path / "a")
    assert fake_hub.num_bytes_served == {path: len(content)}, "the first file is whole"
    assert whole.stat().st_mtime_ns == written and (tmp_path / path).read_bytes() == content
    assert not list((tmp_path / "a").glob(".*")), "nothing is left of what was cut off"


def test_an_update_that_was_killed_is_no_data_set_until_it_is_gone_on_with(sets, fake_hub, hub, in_a_process, tmp_path):
    sets.files["a/train-00002-of-00003.parquet"] = parquet(["w"], 4)
    fetch([A], tmp_path, hub=hub)
    del sets.files["a/train-00002-of-00003.parquet"]
    path = "a/train-00001-of-00002.parquet"
    sets.files[path] = np.random.default_rng(0).bytes(12 * 2**20)
    sets.revision = "b" * 40
    fake_hub.stall_after[path] = 11 * 2**20
    process = in_a_process(tmp_path, HF_ENDPOINT=fake_hub.url, OVERWRITE="1")
    kill_in_the_middle(process, tmp_path / "a", 10 * 2**20)
    assert is_unfinished(tmp_path / "a")
    assert list(verify([A], tmp_path).damaged) == ["a"], "the record is that of the newer version"
    fake_hub.requests.clear()
    assert fetch([A], tmp_path, hub=hub).num_bytes == len(sets.files[path])
    assert sorted(os.listdir(tmp_path / "a")) == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert len(fake_hub.downloads()) == 1 and "b" * 40 in fake_hub.downloads()[0]


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

    assert not (tmp_path / path).exists() and not (tmp_path / "plain" / "h1.csv").exists()
    assert is_unfinished(tmp_path / "a") and is_unfinished(tmp_path / "plain")

    fake_hub.altered.clear()
    assert fetch([A, csv], tmp_path, hub=hub).fetched == ("a", "h1")
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


def test_what_is_found_damaged_does_not_count_as_there(sets, hub, tmp_path, monkeypatch):
    csv = FetchEntry("h1", "owner/sets", "plain/h1.csv", "plain")
    fetch([A, csv], tmp_path, hub=hub)
    files = [tmp_path / "a" / "train-00000-of-00002.parquet", tmp_path / "plain" / "h1.csv"]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content[:-1] + b"!")
    assert not is_unfinished(tmp_path / "a") and not is_unfinished(files[1])
    for _ in range(2):
        assert list(verify([A, csv], tmp_path).damaged) == ["a", "h1"], "also when asked again"
        assert is_unfinished(tmp_path / "a") and is_unfinished(files[1])
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert verify([A, csv], tmp_path).whole == ("a", "h1"), "copied anew, without a network"
    assert not is_unfinished(tmp_path / "a") and not is_unfinished(files[1])

    def forbidden(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    files[0].unlink()
    monkeypatch.setattr(Path, "mkdir", forbidden)
    assert verify([A], tmp_path).damaged == {"a": (f"{files[0]} is missing.",)}, "of a root of somebody else, too"


def test_a_full_disk_is_told_before_it_begins(sets, fake_hub, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match=r"kB are to be fetched, but only 1 B are free there\. Free some space"):
        fetch([A], tmp_path, hub=hub)
    assert not fake_hub.downloads()


def test_a_disk_that_does_not_take_a_file_names_it(sets, fake_hub, hub, tmp_path):
    path = "b/train-00000-of-00001.parquet"
    sets.files[path] = bytes(2**20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            fetch([B], tmp_path, hub=hub)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(tmp_path / path)
    assert not (tmp_path / path).exists() and is_unfinished(tmp_path / "b")
    assert fetch([B], tmp_path, hub=hub).fetched == ("b",)


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
        fetch([A], tmp_path, hub=HfApi(endpoint="http://127.0.0.1:9"))
    fake_hub.status = 501
    with pytest.raises(HubUnreachable, match=r"owner/sets answers 501\. Try again later"):
        fetch([A], tmp_path, hub=hub)


def test_files_that_are_listed_and_not_given_are_told_of(sets, fake_hub, hub, tmp_path):
    fake_hub.file_status = 404
    report = fetch([A, B], tmp_path, hub=hub)
    assert not report.fetched and report.failed.keys() == {"a", "b"}
    assert "owner/sets has no such file or commit any more (404). Fetch again." in report.failed["a"]
    fake_hub.file_status = 403
    assert "owner/sets refuses access (403). Check HF_TOKEN" in fetch([A], tmp_path, hub=hub).failed["a"]
    fake_hub.file_status = 501
    with pytest.raises(HubUnreachable, match=r"owner/sets answers 501\. Try again later"):
        fetch([A], tmp_path, hub=hub)
    fake_hub.file_status, fake_hub.is_bare = 0, True
    with pytest.raises(HubUnreachable, match="does not state commit and checksum of its files.*HF_ENDPOINT"):
        fetch([FetchEntry("h1", "owner/sets", "plain/h1.csv", "plain")], tmp_path, hub=hub)
    assert is_unfinished(tmp_path / "a") and not [path for path in tmp_path.rglob("*.*") if path.suffix == ".parquet"]


def test_a_xet_store_that_does_not_give_a_file_is_told_of(sets, fake_hub, hub, tmp_path):
    pytest.importorskip("hf_xet")
    fake_hub.has_xet = True
    with pytest.raises(HubUnreachable, match=r"owner/sets: .*Xet store \(.*404.*\)\. Set HF_HUB_DISABLE_XET=1"):
        fetch([B], tmp_path, hub=hub)
    assert is_unfinished(tmp_path / "b")


def test_a_file_with_a_hostile_name_is_refused_and_the_others_are_fetched(sets, fake_hub, hub, tmp_path):
    fake_hub.repos["owner/evil"] = FakeRepo({"a/x.csv": b"1", "a/../../../y.csv": b"2", "b/..\\..\\y.csv": b"3"})
    evil = [FetchEntry(f"evil-{name}", "owner/evil", name, f"evil-{name}") for name in "ab"]
    root = tmp_path / "deep" / "root"
    report = fetch([*evil, B], root, hub=hub)
    assert report.fetched == ("b",) and report.failed.keys() == {"evil-a", "evil-b"}
    assert "lists 'a/../../../y.csv', which leads out of the data root" in report.failed["evil-a"]
    assert not [path for path in tmp_path.rglob("*") if "y.csv" in path.name]


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


def test_a_record_that_leads_out_of_the_data_root_deletes_nothing(sets, hub, tmp_path):
    root = tmp_path / "root"
    fetch([B], root, hub=hub)
    (tmp_path / "mine.csv").touch()
    record = root / ".fetched" / "b" / "b.json"
    record.write_text(record.read_text().replace('b/train-00000-of-00001.parquet": {', '../mine.csv": {'))
    with pytest.raises(ValueError, match="names files outside the data root.*Delete this file and fetch again"):
        fetch([B], root, overwrite=True, hub=hub)
    assert (tmp_path / "mine.csv").exists()


def test_two_data_sets_are_never_mixed_in_one_folder(sets, fake_hub, hub, tmp_path):
    fetch([B], tmp_path, hub=hub)
    with pytest.raises(ValueError, match=r"/b holds b of owner/sets, not b of other/sets\. Fetch into another folder"):
        fetch([FetchEntry("b", "other/sets", "b", "b")], tmp_path, hub=hub)
