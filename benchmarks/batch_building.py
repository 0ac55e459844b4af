"""Building batches: a million series on disk, and long histories beside chronos-forecasting's Chronos2Dataset.

    OMP_NUM_THREADS=1 python benchmarks/batch_building.py            # writes 8.5 GB to a temporary folder
    OMP_NUM_THREADS=1 python benchmarks/batch_building.py --quick    # 50,000 series, 0.4 GB

Part one writes a `save_to_disk` folder of series of 2,112 points, opens it and draws global batches of 256 windows of
2,048 points; it ends with an error where a gate is missed. Part two draws the same kind of batch from few long series:
ours memory-mapped from disk, theirs from memory, in turns, so a busy machine slows both. It is skipped, with a note,
where the package is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.formats.reader import open_source
from foreloom.data.formats.writer import write_series
from foreloom.data.loader import BatchLoader
from foreloom.data.source import Series
from foreloom.data.stream.dataset import SeriesDataset

CONTEXT, HORIZON, ROWS = 2048, 64, 256
OPEN_SECONDS, OPEN_BYTES, BATCH_SECONDS = 1.0, 100e6, 20e-3
SERIES_PER_RECORD_BATCH = 1000
"""As the `datasets` library writes them."""


def write_million(folder: Path, num_series: int, num_points: int) -> None:
    """A save_to_disk folder; all record batches hold the same values, so that writing is as fast as the disk."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=SERIES_PER_RECORD_BATCH * num_points).astype(np.float32)
    offsets = np.arange(SERIES_PER_RECORD_BATCH + 1, dtype=np.int32) * num_points
    target = pa.ListArray.from_arrays(offsets, values)
    schema = pa.schema([("item_id", pa.string()), ("target", target.type)])
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for first in range(0, num_series, SERIES_PER_RECORD_BATCH):
            ids = pa.array([f"series_{first + number}" for number in range(SERIES_PER_RECORD_BATCH)])
            writer.write_batch(pa.record_batch([ids, target], schema=schema))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))


def window_loader(path: Path) -> BatchLoader:
    config = DataConfig(
        sources=(SourceConfig(path=str(path)),),
        context_length=CONTEXT,
        prediction_length=HORIZON,
        min_past=CONTEXT,
        num_prefetch=0,
    )
    return BatchLoader(SeriesDataset(config, seed=0), batch_size=ROWS)


def measure_million(num_series: int, num_batches: int) -> Table:
    """Opening time and memory, time of a batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_million(path, num_series, CONTEXT + HORIZON)
        process = psutil.Process()
        before_bytes = process.memory_info().rss
        began = time.perf_counter()
        source = open_source(path)
        open_seconds = time.perf_counter() - began
        open_bytes = process.memory_info().rss - before_bytes
        assert len(source) == num_series

        loader = window_loader(path)
        seconds, first = [], 0
        for _ in range(num_batches):
            began = time.perf_counter()
            batch = loader.batch(first)
            seconds.append(time.perf_counter() - began)
            first = batch.next_sample
            assert batch.micro_batches[0].context_RC.shape == (ROWS, CONTEXT)
            assert not np.isnan(batch.micro_batches[0].future_RH).any()

    table = Table(title=f"{num_series:,} series, {source.num_bytes / 1e9:.1f} GB", title_justify="left")
    for column in ("", "measured", "gate", ""):
        table.add_column(column, justify="right")
    for what, value, gate, unit in (
        ("open", open_seconds, OPEN_SECONDS, "s"),
        ("memory of opening", open_bytes / 1e6, OPEN_BYTES / 1e6, "MB"),
        ("first batch", seconds[0] * 1e3, None, "ms"),
        ("batch (median)", statistics.median(seconds) * 1e3, BATCH_SECONDS * 1e3, "ms"),
    ):
        verdict = "" if gate is None else "ok" if value < gate else "MISSED"
        table.add_row(what, f"{value:.2f} {unit}", "" if gate is None else f"< {gate:g} {unit}", verdict)
    return table


def measure_beside_reference(lengths: list[int], num_batches: int) -> Table:
    """Median time of a batch, ours and theirs in turns, for a few lengths of history."""
    table = Table(title=f"{ROWS} windows of {CONTEXT} points from 16 series", title_justify="left")
    for column in ("points a series", "foreloom", "Chronos2Dataset", "ratio"):
        table.add_column(column, justify="right")
    rng = np.random.default_rng(0)
    for length in lengths:
        series = [rng.normal(size=length).astype(np.float32) for _ in range(16)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "series.arrow"
            write_series((Series(str(number), values[None]) for number, values in enumerate(series)), path)
            sides = {"ours": our_batches(path), "theirs": their_batches(series)}
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(num_batches + 1):
                for name, draw in sides.items():
                    began = time.perf_counter()
                    shape = draw()
                    seconds[name].append(time.perf_counter() - began)
                    assert shape == (ROWS, CONTEXT)
        ours, theirs = (statistics.median(seconds[name][1:]) for name in ("ours", "theirs"))
        table.add_row(f"{length:,}", f"{ours * 1e3:.2f} ms", f"{theirs * 1e3:.1f} ms", f"{theirs / ours:.1f}x")
    return table


def our_batches(path: Path) -> Callable[[], tuple[int, ...]]:
    batches = iter(window_loader(path))
    return lambda: next(batches).micro_batches[0].context_RC.shape


def their_batches(series: list[np.ndarray]) -> Callable[[], tuple[int, ...]]:
    from chronos.chronos2.dataset import Chronos2Dataset

    batches = iter(
        Chronos2Dataset(series, CONTEXT, HORIZON, ROWS, output_patch_size=16, min_past=CONTEXT, mode="train")
    )
    return lambda: tuple(next(batches)["context"].shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50,000 series, few batches, short histories")
    parser.add_argument("--part", choices=("million", "reference", "both"), default="both")
    arguments = parser.parse_args()
    console = Console()
    missed = False
    if arguments.part != "reference":
        table = measure_million(50_000 if arguments.quick else 1_000_000, 10 if arguments.quick else 100)
        console.print(table)
        missed = "MISSED" in list(table.columns[-1].cells)
    if arguments.part != "million":
        if importlib.util.find_spec("chronos") is None:
            console.print("chronos-forecasting is not installed: pip install 'foreloom[reference]' to compare.")
        else:
            lengths = [4_096, 65_536] if arguments.quick else [4_096, 65_536, 1_048_576]
            console.print(measure_beside_reference(lengths, 3 if arguments.quick else 10))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
