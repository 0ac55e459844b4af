"""Every layout gives back what was written."""

from __future__ import annotations

import json
import os
import pickle
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from foreloom.data.convert import convert
from foreloom.data.formats import cache
from foreloom.data.formats.cache import cached
from foreloom.data.formats.reader import open_source
from foreloom.data.inspect import inspect
from foreloom.data.tables.options import TableOptions

UNIVARIATE = [[1.0, 2.0, 3.0], [4.0, float("nan"), 6.0, 7.0], [8.0], [9.0, 10.0]]


def values(source, item: int) -> list:
    return source.read(item).target_VT.tolist()


def assert_univariate(source, expected=UNIVARIATE) -> None:
    assert len(source) == len(expected)
    assert source.lengths.tolist() == [len(row) for row in expected]
    assert source.num_rows.tolist() == [1] * len(expected)
    for item, row in enumerate(expected):
        np.testing.assert_array_equal(source.read(item).target_VT, np.array([row]))


@pytest.mark.parametrize(
    "value", [pa.float32(), pa.float64(), pa.float16(), pa.int64(), pa.int32(), pa.int16()], ids=str
)
@pytest.mark.parametrize("wrap", [pa.list_, pa.large_list], ids=["list", "large_list"])
def test_number_and_list_types(tmp_path, save_to_disk, value, wrap) -> None:
    rows = [[1, 2, 3], [], [4, None, 6, 7], [8]]
    if pa.types.is_float16(value):
        rows = [[None if v is None else np.float16(v) for v in row] for row in rows]
    table = pa.table({"target": pa.array(rows, wrap(value))})
    source = open_source(save_to_disk(tmp_path / "set", table, batch_rows=3))
    assert_univariate(source, [[np.nan if v is None else float(v) for v in row] for row in rows])


def test_fixed_size_lists_and_variates(tmp_path, save_to_disk) -> None:
    flat = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2))
    source = open_source(save_to_disk(tmp_path / "flat", pa.table({"target": flat}), batch_rows=2))
    assert_univariate(source, [[1, 2], [3, 4], [5, 6]])

    nested = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]]
    for number, type_ in enumerate(
        [pa.list_(pa.list_(pa.float64())), pa.large_list(pa.list_(pa.float32(), 2)), pa.list_(pa.large_list(pa.int8()))]
    ):
        table = pa.table({"target": pa.array(nested, type_)})
        source = open_source(save_to_disk(tmp_path / f"nested{number}", table))
        assert source.num_rows.tolist() == [2, 1]
        assert source.lengths.tolist() == [2, 2]
        assert [values(source, item) for item in range(2)] == nested


def test_null_values_are_missing_whatever_their_place(tmp_path, save_to_disk) -> None:
    rng = np.random.default_rng(0)
    rows = [
        [[None if rng.random() < 0.3 else float(v) for v in rng.integers(0, 99, length)] for _ in range(3)]
        for length in (5, 17, 1, 40)
    ]
    table = pa.table({"target": pa.array(rows, pa.list_(pa.list_(pa.float32())))})
    source = open_source(save_to_disk(tmp_path / "set", table, batch_rows=3))
    for item, row in enumerate(rows):
        expected = np.array(row, dtype=float)
        np.testing.assert_array_equal(source.read(item).target_VT, expected)
        cut = max(1, len(row[0]) // 2)
        context, future = np.full((3, 8), np.nan, np.float32), np.full((3, 4), np.nan, np.float32)
        source.fill_window(item, cut, context, future)
        np.testing.assert_array_equal(context[:, 8 - min(cut, 8) :], expected[:, max(0, cut - 8) : cut])
        np.testing.assert_array_equal(future[:, : expected.shape[1] - cut], expected[:, cut : cut + 4])


def test_save_to_disk_of_several_files_and_a_dict_of_splits(tmp_path, save_to_disk) -> None:
    column = pa.array(UNIVARIATE, pa.list_(pa.float32()))
    tables = [pa.table({"target": column[:2]}), pa.table({"target": column[2:]})]
    assert_univariate(open_source(save_to_disk(tmp_path / "dict" / "train", *tables)))
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert_univariate(open_source(tmp_path / "dict"))
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["test", "validation"]}')
    with pytest.raises(ValueError, match=r"no split 'train'; the splits are test, validation\. .*dict/test"):
        open_source(tmp_path / "dict")


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_gluonts_files(tmp_path, arrow_file, compression, cache_folder) -> None:
    start = pa.array([np.datetime64("2020-01-01", "us")] * 4)
    table = pa.table({"start": start, "target": pa.array(UNIVARIATE, pa.list_(pa.float32()))})
    arrow_file(tmp_path / "a.arrow", table, compression)
    source = open_source(tmp_path / "a.arrow")
    assert_univariate(source)
    assert source.read(0).start == np.datetime64("2020-01-01")
    assert cache_folder.exists() == (compression is not None)

    folder = tmp_path / "folder"
    folder.mkdir()
    arrow_file(folder / "1.arrow", table.slice(0, 3), compression)
    arrow_file(folder / "2.arrow", table.slice(3), compression)
    assert_univariate(open_source(folder))


def test_gluonts_flattened_arrays_and_dynamic_features(tmp_path, arrow_file) -> None:
    table = pa.table(
        {
            "start": pa.array(["2020-01-01 00:00", "2020-01-02"]),
            "target": pa.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0]], pa.list_(pa.float32())),
            "target._np_shape": pa.array([[2, 3], [1, 2]], pa.list_(pa.int64())),
            "past_feat_dynamic_real": [[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], None],
            "feat_dynamic_real": [[[10.0, 20.0, 30.0]], [[40.0, 50.0]]],
            "feat_static_cat": [[3], [4]],
        }
    )
    source = open_source(arrow_file(tmp_path / "a.arrow", table))
    assert source.num_rows.tolist() == [5, 2]
    first, second = source.read(0), source.read(1)
    assert first.target_VT.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert list(first.past) == ["past_feat_dynamic_real_000", "past_feat_dynamic_real_001"]
    assert first.past["past_feat_dynamic_real_001"].tolist() == [0.4, 0.5, 0.6]
    assert second.past == {}
    assert second.future["feat_dynamic_real_000"].tolist() == [40, 50]
    assert second.static == {"feat_static_cat": [4]}
    assert second.start == np.datetime64("2020-01-02")


def covariate_table() -> pa.Table:
    return pa.table(
        {
            "item_id": ["a", "b"],
            "start": pa.array([np.datetime64("2021-01-01", "us"), None]),
            "freq": ["D", None],
            "target": pa.array([[1.0, 2.0, 3.0], [4.0, 5.0]], pa.list_(pa.float32())),
            "past__z": pa.array([[0.1, 0.2, 0.3], [0.4, 0.5]], pa.list_(pa.float64())),
            "past_cat__kind": [["u", None, "v"], ["v", "v"]],
            "future__holiday": pa.array([[0, 1, 0], [1, 1]], pa.list_(pa.int8())),
            "future_cat__day": [["x", "y", "x"], ["y", "y"]],
            "static__shop": ["north", "south"],
            "note": [1, 2],
        }
    )


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_covariates_keep_their_roles(tmp_path, save_to_disk, form) -> None:
    if form == "parquet":
        pq.write_table(covariate_table(), tmp_path / "set.parquet", row_group_size=1)
        source = open_source(tmp_path / "set.parquet")
    else:
        source = open_source(save_to_disk(tmp_path / "set", covariate_table()))
    first = source.read(0)
    assert (first.item_id, first.freq, first.start) == ("a", "D", np.datetime64("2021-01-01"))
    assert {name: list(row) for name, row in first.past.items()} == {"kind": ["u", None, "v"], "z": [0.1, 0.2, 0.3]}
    assert {name: list(row) for name, row in first.future.items()} == {"day": ["x", "y", "x"], "holiday": [0, 1, 0]}
    assert first.static == {"shop": "north"}
    assert first.counts == (1, 2, 2)
    assert source.num_rows.tolist() == [5, 5]
    assert source.read(1).start is None


def test_boolean_covariates_become_numbers(tmp_path, save_to_disk) -> None:
    table = pa.table({"target": [[1.0, 2.0]], "future__promo": [[True, None]]})
    promo = open_source(save_to_disk(tmp_path / "set", table)).read(0).future["promo"]
    np.testing.assert_array_equal(promo, [1, np.nan])


@pytest.mark.parametrize("names", [("item_id", "timestamp", "target"), ("unique_id", "ds", "y")])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_long_tables(tmp_path, names, form) -> None:
    rows = [
        ("b", "2024-01-03", 3.0, 30, "hot"),
        ("a", "2024-02-01", 10.0, 0, "x"),
        ("b", "2024-01-01", 1.0, 10, "cold"),
        ("b", "2024-01-02", None, 20, None),
        ("a", "2024-03-01", 11.0, 1, "y"),
        ("a", "2024-04-01", 12.0, 2, "y"),
    ]
    frame = pd.DataFrame(rows, columns=[*names, "load", "sky"])
    path = tmp_path / f"long.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    else:
        frame[names[1]] = pd.to_datetime(frame[names[1]])
        frame.to_parquet(path)
    source = open_source(path)
    assert [source.read(item).item_id for item in range(2)] == ["b", "a"]
    b, a = source.read(0), source.read(1)
    np.testing.assert_array_equal(b.target_VT, [[1, np.nan, 3]])
    assert a.target_VT.tolist() == [[10, 11, 12]]
    assert b.past["load"].tolist() == [10, 20, 30]
    assert b.past["sky"].tolist() == ["cold", None, "hot"]
    assert (b.start, b.freq, a.freq) == (np.datetime64("2024-01-01"), "D", "MS")
    assert b.timestamps is None


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_long_table_in_several_files(tmp_path, form) -> None:
    parts = [[("a", "2024-01-01", 1), ("b", "2024-01-01", 10)], [("a", "2024-01-02", 2), ("a", "2024-01-03", 2.5)]]
    for number, rows in enumerate(parts):
        frame = pd.DataFrame(rows, columns=["unique_id", "ds", "y"])
        frame.to_csv(tmp_path / f"{number}.csv", index=False) if form == "csv" else frame.to_parquet(
            tmp_path / f"{number}.parquet"
        )
    source = open_source(tmp_path)
    assert [values(source, item) for item in range(2)] == [[[1, 2, 2.5]], [[10]]]


def test_wide_tables_in_several_files_are_as_many_series(tmp_path) -> None:
    (tmp_path / "north.csv").write_text("date,p,q\n2024-01-01,1,2\n2024-01-02,3,\n")
    (tmp_path / "south.csv").write_text("date,p\n2024-01-01,5\n2024-01-02,6\n2024-01-04,7\n")
    source = open_source(tmp_path)
    assert source.num_rows.tolist() == [2, 1]
    assert [source.read(item).item_id for item in range(2)] == ["north", "south"]
    np.testing.assert_array_equal(source.read(0).target_VT, [[1, 3], [2, np.nan]])
    assert source.read(0).timestamps is None
    np.testing.assert_array_equal(source.read(1).target_VT, [[5, 6, np.nan, 7]])


def test_start_with_a_time_zone_is_read_as_utc(tmp_path, save_to_disk) -> None:
    start = pa.array([np.datetime64("2024-01-01T12:00", "us")]).cast(pa.timestamp("us", "Europe/Berlin"))
    source = open_source(save_to_disk(tmp_path / "set", pa.table({"target": [[1.0]], "start": start})))
    assert source.read(0).start == np.datetime64("2024-01-01T12:00")


def test_irregular_times_are_kept_if_they_are_to_be(tmp_path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text("ds,y\n2024-01-01,1\n2024-01-02,2\n2024-01-09,3\n2024-01-10,4\n")
    with pytest.raises(ValueError, match="gaps.csv: series 'gaps' is not regular: .* 2024-01-02 .* to 2024-01-09"):
        open_source(path)
    series = open_source(path, table=TableOptions(fill_gaps=False)).read(0)
    assert series.freq is None
    assert series.timestamps[2] == np.datetime64("2024-01-09")
    assert series.item_id == "gaps"


def test_wide_csv_is_one_multivariate_series(tmp_path, shared) -> None:
    source = open_source(shared / "data" / "ltsf_csv" / "ETTh1.csv")
    assert len(source) == 1
    assert source.num_rows.tolist() == [7]
    series = source.read(0)
    pack = open_source(shared / "data" / "etth1").read(0)
    np.testing.assert_array_equal(series.target_VT.astype(np.float32), pack.target_VT)
    assert (series.start, series.freq) == (pack.start, "h")
    assert series.static["variates"] == "HUFL, HULL, MUFL, MULL, LUFL, LULL, OT"


def test_jsonl(tmp_path) -> None:
    path = tmp_path / "lines.jsonl"
    lines = [
        {"sequence": [1, 2.5, None]},
        {"target": [[1, 2], [3, None]], "item_id": "m", "start": "2024-01-01", "freq": "D", "past__x": [5, 6]},
        {"target": [7], "past_cat__c": ["red"], "feat_dynamic_real": [[8]], "static__s": "t"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    source = open_source(path)
    assert source.num_rows.tolist() == [1, 3, 3]
    np.testing.assert_array_equal(source.read(0).target_VT, [[1, 2.5, np.nan]])
    second, third = source.read(1), source.read(2)
    np.testing.assert_array_equal(second.target_VT, [[1, 2], [3, np.nan]])
    assert (second.item_id, second.start, second.freq) == ("m", np.datetime64("2024-01-01"), "D")
    assert second.past["x"].tolist() == [5, 6]
    assert third.past["c"].tolist() == ["red"]
    assert third.future["feat_dynamic_real_000"].tolist() == [8]
    assert third.static["s"] == "t"


def test_every_set_of_the_pack_opens(shared) -> None:
    folders = sorted(path.parent for path in (shared / "data").glob("*/data.parquet"))
    assert len(folders) == 46
    for folder in folders:
        meta = yaml.safe_load((folder / "meta.yaml").read_text())
        source = open_source(folder)
        assert len(source) == meta["n_series"], folder.name
        assert (source.lengths.min(), source.lengths.max()) == (meta["length_min"], meta["length_max"]), folder.name
        targets = [source.read(item).target_VT for item in range(len(source))]
        assert sum(target.size for target in targets) == meta["total_points"], folder.name
        assert sum(int(np.isnan(target).sum()) for target in targets) == meta["missing_points"], folder.name


def test_conversion_happens_once_and_again_when_the_file_changes(tmp_path, cache_folder) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ds,y\n1,10\n2,20\n")
    assert values(open_source(path), 0) == [[10, 20]]
    (converted,) = cache_folder.glob("*.arrow")
    before = converted.stat().st_mtime_ns
    open_source(path)
    assert converted.stat().st_mtime_ns == before
    path.write_text("ds,y\n1,10\n2,30\n")
    os.utime(path, ns=(1, 1))
    assert values(open_source(path), 0) == [[10, 30]]
    assert len(list(cache_folder.glob("*.arrow"))) == 2


def test_a_long_conversion_says_how_far_it_is_where_there_is_no_terminal(tmp_path, monkeypatch, capsys) -> None:
    seconds = iter(range(0, 10_000, 25))
    monkeypatch.setattr(cache.time, "monotonic", lambda: next(seconds))
    path = tmp_path / "a.jsonl"
    path.write_text("[1.0, 2.0]\n" * 10)
    open_source(path)
    assert capsys.readouterr().err == "", "a small file is there at once"
    monkeypatch.setattr(cache, "SHOWN_FROM_BYTES", 0)
    path.write_text("[1.0, 2.5]\n" * 10)
    os.utime(path, ns=(1, 1))
    open_source(path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "converting a.jsonl once: 30% of 0 MB" and len(lines) == 3, lines


def test_fingerprint_moves_with_the_data_and_changes_with_it(tmp_path, save_to_disk) -> None:
    def write(name: str, last: float) -> str:
        table = pa.table({"target": [[1.0, 2.0], [3.0, last]]})
        return open_source(save_to_disk(tmp_path / name, table)).fingerprint

    assert write("a", 4.0) == write("copy", 4.0) != write("changed", 5.0)


def test_reading_maps_and_does_not_copy(tmp_path, save_to_disk) -> None:
    table = pa.table({"target": pa.array([np.zeros(1000, np.float32)] * 50, pa.list_(pa.float32()))})
    source = open_source(save_to_disk(tmp_path / "set", table))
    target_VT = source.read(7).target_VT
    assert not target_VT.flags.owndata
    assert not target_VT.flags.writeable


@pytest.mark.parametrize("with_nulls", [False, True])
def test_a_window_costs_what_it_holds_whatever_the_length_of_the_series(tmp_path, save_to_disk, with_nulls) -> None:
    length = 4 * 2**20
    values_T = np.arange(length, dtype=np.float32)
    flat = pa.array(values_T, mask=values_T % 7 == 0) if with_nulls else pa.array(values_T)
    expected = np.where(values_T % 7 == 0, np.nan, values_T) if with_nulls else values_T
    target = pa.ListArray.from_arrays(pa.array([0, length], pa.int32()), flat)
    source = open_source(save_to_disk(tmp_path / "set", pa.table({"target": target})))
    context, future = np.empty((1, 1024), np.float32), np.empty((1, 64), np.float32)
    tracemalloc.start()
    for cut in np.linspace(2048, length - 64, 64).astype(int):
        source.fill_window(0, int(cut), context, future)
        np.testing.assert_array_equal(context[0], expected[cut - 1024 : cut])
        np.testing.assert_array_equal(future[0], expected[cut : cut + 64])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**18 < source.num_bytes / 50


def test_ranks_that_open_at_once_convert_once(tmp_path) -> None:
    path = tmp_path / "shared.jsonl"
    path.write_text('{"target": [1, 2, 3]}\n')
    calls = []

    def write(out) -> None:
        calls.append(out)
        time.sleep(0.2)
        out.write_bytes(b"whole ARROW1")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cached([path], write), range(4)))
    assert len(set(found)) == len(calls) == 1
    assert found[0].read_bytes() == b"whole ARROW1"


def test_a_tree_of_folders_is_one_source(tmp_path, save_to_disk, cache_folder) -> None:
    root = tmp_path / "root"
    for folder in ("b", "a/deep", ".hidden", "empty"):
        (root / folder).mkdir(parents=True)
    (root / "b" / "two.jsonl").write_text("[2, 2]\n[2, 2, 2]\n")
    (root / "b" / "three.jsonl").write_text("[3, 3]\n")
    np.save(root / "a" / "deep" / "one.npy", np.ones((2, 4)))
    (root / "a" / "deep" / "one.pkl").write_bytes(pickle.dumps([[9, 9, 9]]))
    (root / ".hidden" / "no.jsonl").write_text("nonsense")
    (root / "notes.txt").write_text("x")
    pq.write_table(pa.table({"target": [[7.0], [8.0, 8.0]], "item_id": ["x", "y"]}), root / "top.parquet")
    save_to_disk(root / "saved", pa.table({"target": [[5.0] * 5, [6.0] * 6]}))
    rows = [[7], [8, 8], [1] * 4, [1] * 4, [9] * 3, [3, 3], [2, 2], [2, 2, 2], [5] * 5, [6] * 6]
    source = open_source(root)
    assert source.name == str(root)
    assert_univariate(source, rows)
    ids = [source.read(item).item_id for item in range(len(source))]
    assert ids[:5] == ["top.parquet/x", "top.parquet/y", "a/deep/one.npy/0", "a/deep/one.npy/1", "a/deep/one.pkl/0"]
    assert ids[5].startswith("b/*.jsonl/") and ids[-1] == "saved/1"
    context, future = np.full((1, 4), np.nan), np.full((1, 2), np.nan)
    source.fill_window(9, 3, context, future)
    assert context[0, 1:].tolist() == [6, 6, 6] and future.tolist() == [[6, 6]]
    assert open_source(root / "b").read(0).target_VT.tolist() == [[3, 3]]

    report = inspect(root, prediction_length=1)
    assert report.layout == "parquet + npy + pickle + jsonl + arrow"
    assert (report.num_series, report.num_points) == (10, 32)
    assert convert(root, tmp_path / "out.arrow") == 10
    assert_univariate(open_source(tmp_path / "out.arrow"), rows)

    before = source.fingerprint
    (root / "b" / "three.jsonl").write_text("[3, 3, 3]\n")
    assert open_source(root).fingerprint != before
