"""How long a run of many series needs to go on: from the command to the first step after its checkpoint.

    OMP_NUM_THREADS=1 python benchmarks/resume_time.py                   # a thousand series, and a million
    OMP_NUM_THREADS=1 python benchmarks/resume_time.py --series 1000000

A small Chronos-2 trains two steps over an Arrow file of series of 64 steps, and is then taken up in a process of its
own, which is given the seconds of the clock and of the CPU until it has made the third.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from foreloom import run
from foreloom.monitoring.metrics_file import read_metrics

LENGTH = 64
RECIPE = (
    *("training.steps=3", "training.save_steps=2", "training.batch_size=64", "training.device=cpu"),
    *("data.context_length=32", "data.prediction_length=8", "model.num_layers=1", "model.d_model=32", "model.d_ff=32"),
    *("validation.steps=0", "benchmark.steps=0", "monitoring.log_steps=1", "monitoring.trackers=[none]"),
)


def write(num_series: int, file: Path) -> None:
    """Series of noise as foreloom writes them, in parts: 256 bytes each."""
    schema = pa.schema([("item_id", pa.string()), ("target", pa.list_(pa.float32()))])
    rng = np.random.default_rng(0)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for first in range(0, num_series, 50_000):
            count = min(50_000, num_series - first)
            values = pa.array(rng.normal(size=count * LENGTH).astype(np.float32))
            target = pa.ListArray.from_arrays(
                pa.array(np.arange(0, count * LENGTH + 1, LENGTH, dtype=np.int32)), values
            )
            writer.write_batch(pa.record_batch([pa.array([f"s{first + i}" for i in range(count)]), target], schema))


def seconds(run_dir: Path, recipe: list[str], how: str) -> tuple[float, float]:
    """Of a training in a process of its own: by the clock without imports, and of the CPU with them."""
    arguments = [sys.executable, __file__, "--train", str(run_dir), how, *recipe]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    clock, cpu = done.stdout.splitlines()[-1].split()
    return float(clock), float(cpu)


def train(run_dir: str, how: str, *recipe: str) -> None:
    """What `seconds` starts."""
    began = time.perf_counter()
    run.train("chronos2-test", recipe, out=run_dir, resume=how == "resumed")
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(time.perf_counter() - began, used.ru_utime + used.ru_stime)


def measure(num_series: int, folder: Path) -> tuple[str, ...]:
    """A row of the table."""
    file, run_dir = folder / f"{num_series}.arrow", folder / f"run-{num_series}"
    write(num_series, file)
    recipe = [f"data.sources=[{{path: {file}}}]", *RECIPE]
    new = seconds(run_dir, recipe, "new")
    shutil.rmtree(run_dir / "checkpoints" / "step-00000003")
    (run_dir / "checkpoints" / "final").unlink()
    resumed = seconds(run_dir, recipe, "resumed")
    steps = [one["step"] for one in read_metrics(run_dir).steps]
    assert steps == [1, 2, 3]
    return f"{num_series:,}", *(f"{one:.1f} s" for one in (*new, *resumed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("--series", type=int, nargs="+", default=[1000, 1_000_000])
    asked = parser.parse_args()
    if asked.train:
        train(*asked.train)
        return
    table = Table("series", "new: clock", "CPU", "resumed: clock", "CPU")
    with tempfile.TemporaryDirectory() as folder:
        for number in asked.series:
            table.add_row(*measure(number, Path(folder)))
    Console().print(table)
    print("imports are in the CPU's seconds and not in the clock's")


if __name__ == "__main__":
    main()
