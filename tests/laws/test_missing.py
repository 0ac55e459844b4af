"""Law: missing values stay missing from the file to the window, and what lies under them is never read."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from foreloom.data.config import DataConfig, SourceConfig
from loaders import series_loader

JUNK = 12345.0


@pytest.fixture
def values() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 2, 60)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[1, 0] = np.nan
    return values


def write_nan(folder, values) -> None:
    write(folder, pa.array(values.reshape(-1)), values.shape)


def write_null_over_junk(folder, values) -> None:
    """Nulls by the validity bitmap, with other numbers lying under them."""
    flat = values.reshape(-1)
    bits = np.packbits(~np.isnan(flat), bitorder="little")
    buffers = [pa.py_buffer(bits), pa.py_buffer(np.where(np.isnan(flat), np.float32(JUNK), flat))]
    write(folder, pa.Array.from_buffers(pa.float32(), len(flat), buffers), values.shape)


def write(folder, flat: pa.Array, shape) -> None:
    num_series, num_variates, length = shape
    rows = pa.ListArray.from_arrays(np.arange(num_series * num_variates + 1, dtype=np.int32) * length, flat)
    target = pa.ListArray.from_arrays(np.arange(num_series + 1, dtype=np.int32) * num_variates, rows)
    batch = pa.record_batch({"target": target})
    folder.mkdir()
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def write_jsonl(folder, values) -> None:
    folder.mkdir()
    rows = [[[None if np.isnan(v) else float(v) for v in row] for row in series] for series in values]
    (folder / "data.jsonl").write_text("\n".join(json.dumps({"target": row}) for row in rows))


@pytest.mark.parametrize("write_set", [write_nan, write_null_over_junk, write_jsonl])
def test_missing_stays_missing(tmp_path, monkeypatch, values, write_set) -> None:
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    write_set(tmp_path / "set", values)
    config = DataConfig(
        sources=(SourceConfig(path=str(tmp_path / "set")),), context_length=16, prediction_length=6, min_past=3
    )
    loader = series_loader(config, seed=0, batch_size=400)
    (windows,) = loader.batch(0).micro_batches
    for row, (item, context, future) in enumerate(
        zip(windows.item_R, windows.context_RC, windows.future_RH, strict=True)
    ):
        series = values[item, row % 2]
        window = np.concatenate([context, future])
        # Left padding is missing too: find the cut at which the window fits the series, gaps and all.
        padded = np.concatenate([np.full(16, np.nan, np.float32), series])
        fits = [cut for cut in range(3, 55) if np.array_equal(padded[cut : cut + 22], window, equal_nan=True)]
        assert fits, f"row {row} is no window of its series"
    assert np.isnan(windows.context_RC).any()
    assert np.isnan(windows.future_RH).any()
    assert not (windows.context_RC == JUNK).any()
