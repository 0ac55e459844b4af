"""Tiny data sets in every layout."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch) -> Path:
    """Conversions of a test stay in the test's folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FORELOOM_CACHE", str(folder))
    return folder


@pytest.fixture
def save_to_disk():
    """Writes tables as a Hugging Face `save_to_disk` folder does: one IPC stream a table, and state.json."""

    def save(folder: Path, *tables: pa.Table, batch_rows: int = 1000) -> Path:
        folder.mkdir(parents=True)
        names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
        for name, table in zip(names, tables, strict=True):
            with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=batch_rows)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        (folder / "dataset_info.json").write_text("{}")
        return folder

    return save


@pytest.fixture
def arrow_file():
    """Writes a table in the IPC file format, as GluonTS does."""

    def write(path: Path, table: pa.Table, compression: str | None = None) -> Path:
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=2)
        return path

    return write
