"""Time-300B folders: what the format says, and sentences where a folder does not keep to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foreloom.data.convert import convert
from foreloom.data.formats import time300b as binary_index
from foreloom.data.formats.reader import open_source
from foreloom.data.inspect import inspect


def write(folder: Path, shards: dict[str, np.ndarray], scales: list[dict], **other) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in shards.items():
        values.tofile(folder / name)
    described = {
        "num_sequences": len(scales),
        "dtype": str(next(iter(shards.values())).dtype),
        "files": {name: len(values) for name, values in shards.items()},
        "scales": scales,
    }
    (folder / "meta.json").write_text(json.dumps(described | other))
    return folder


def twelve_shards(folder: Path, dtype="float32") -> tuple[Path, np.ndarray]:
    """Twelve shards of 0 to 11 elements, 66 in all, named so that the order of names is not that of numbers."""
    flat = np.arange(66).astype(dtype)
    ends = np.cumsum(range(12))
    shards = {f"data-{n + 1}-of-12.bin": flat[end - n : end] for n, end in enumerate(ends)}
    scales = [
        {"offset": 0, "length": 40},
        {"offset": 40, "length": 26, "mean": -3.5, "std": 2.0},
        {"offset": 9, "length": 30, "mean": 1.0},
        {"offset": 66, "length": 0},
    ]
    return write(folder, dict(sorted(shards.items(), reverse=True)), scales), flat


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "int64", "uint8"])
def test_sequences_cross_shards_and_are_rescaled(tmp_path, dtype) -> None:
    folder, flat = twelve_shards(tmp_path / "set", dtype)
    source = open_source(folder)
    expected = [flat[:40], flat[40:] * 2.0 - 3.5, flat[9:39], flat[:0]]
    assert source.lengths.tolist() == [40, 26, 30, 0]
    assert source.num_rows.tolist() == source.num_targets.tolist() == [1] * 4
    assert source.num_bytes == flat.nbytes
    for item, whole in enumerate(expected):
        series = source.read(item)
        assert series.target_VT.tolist() == [whole.tolist()]
        assert series.target_VT.dtype == (np.float32 if dtype in ("float16", "float32") else np.float64)
        for cut in range(len(whole) + 1):
            context, future = np.full((1, 7), np.nan, np.float32), np.full((1, 3), np.nan)
            assert source.fill_window(item, cut, context, future) == (1, 0, 0)
            num_past, num_ahead = min(cut, 7), min(len(whole) - cut, 3)
            assert np.isnan(context[0, : 7 - num_past]).all() and np.isnan(future[0, num_ahead:]).all()
            assert context[0, 7 - num_past :].tolist() == whole[cut - num_past : cut].tolist()
            assert future[0, :num_ahead].tolist() == whole[cut : cut + num_ahead].tolist()


def test_the_description_is_parsed_once_and_again_when_it_changes(tmp_path, monkeypatch) -> None:
    folder, flat = twelve_shards(tmp_path / "set")
    parsed = []
    described = binary_index._described
    monkeypatch.setattr(binary_index, "_described", lambda meta: parsed.append(meta) or described(meta))
    fingerprints = {open_source(folder).fingerprint for _ in range(3)}
    assert len(parsed) == len(fingerprints) == 1
    meta = json.loads((folder / "meta.json").read_text())
    meta["scales"].append({"offset": 0, "length": 66})
    (folder / "meta.json").write_text(json.dumps(meta | {"num_sequences": 5}))
    changed = open_source(folder)
    assert changed.read(4).target_VT.tolist() == [flat.tolist()]
    assert changed.fingerprint not in fingerprints
    assert len(parsed) == 2


def test_inspect_and_convert(tmp_path) -> None:
    folder, flat = twelve_shards(tmp_path / "root" / "energy")
    write(tmp_path / "root" / "a", {"x-1-.bin": np.arange(5.0)}, [{"offset": 0, "length": 5}])
    report = inspect(folder, prediction_length=2)
    assert (report.layout, report.num_series, report.num_points, report.freqs) == ("binary", 4, 96, {"unknown": 4})
    assert convert(folder, tmp_path / "out.parquet", "parquet") == 4
    assert open_source(tmp_path / "out.parquet").read(0).target_VT.tolist() == [flat[:40].tolist()]
    both = open_source(tmp_path / "root")
    assert [both.read(item).item_id for item in (0, 1)] == ["a/0", "energy/0"]


def test_folders_that_do_not_keep_to_the_format(tmp_path) -> None:
    good = {"data-1-of-1.bin": np.arange(10, dtype=np.float32)}
    scale = {"offset": 0, "length": 10}

    def refuse(*words: str, shards=good, scales=(scale,), **other) -> None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write(folder, shards, list(scales), **other)
        with pytest.raises(ValueError) as caught:
            open_source(folder)
        for word in (str(folder), *words):
            assert word in str(caught.value), str(caught.value)

    refuse("num_sequences is 2, but there are 1 scales", num_sequences=2)
    refuse("is empty, it has no sequences", scales=[])
    refuse("dtype 'float33' is not a type of numbers", dtype="float33")
    refuse("dtype 'complex64' is not a type of numbers", dtype="complex64")
    refuse("has 40 bytes", "10 elements of float64, that is 80 bytes", dtype="float64")
    refuse("data-2-of-2.bin: the shard is missing", files={"data-1-of-1.bin": 10, "data-2-of-2.bin": 3})
    refuse("the shard 'data.bin' has no number", files={"data.bin": 10})
    refuse("'data-1-of-1.bin' has '10' for its number", files={"data-1-of-1.bin": "10"})
    refuse("sequence 1 reaches from element 5 to 11", "10 elements", scales=[scale, {"offset": 5, "length": 6}])
    refuse("sequence 0 reaches from element -1", scales=[{"offset": -1, "length": 6}])
    refuse("sequence 1 has no proper 'length'", scales=[scale, {"offset": 5}])
    refuse("sequence 0 has no proper 'std'", scales=[scale | {"mean": 1.0, "std": "x"}])
    refuse("no proper 'files'", files=None)
    folder = write(tmp_path / "cut", good, [scale])
    (folder / "meta.json").write_text((folder / "meta.json").read_text()[:40])
    with pytest.raises(ValueError, match=r"cut/meta\.json:1: not JSON"):
        open_source(folder)
    (folder / "meta.json").unlink()
    with pytest.raises(ValueError, match=r"not a data set, it holds data-1-of-1\.bin.*meta\.json"):
        open_source(folder)
