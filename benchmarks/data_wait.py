"""Does one thread feed an accelerator? Steps of chronos2-base as long as an A100's, simulated, and what they wait.

    OMP_NUM_THREADS=1 python benchmarks/data_wait.py                    # from disk, and from synthetic processes
    OMP_NUM_THREADS=1 python benchmarks/data_wait.py --ranks 8 --steps 20

A step makes its tensors as a training does and then sleeps for what is left of `FLOPs / (peak x MFU)`; its global batch
comes from the loader, which reads ahead as in training. The share of the time that steps wait for data is what is asked
for; the loader's CPU seconds a step are told too, which a busy machine changes less. Ends with 1 where series from disk
make steps wait 2 % of the time or more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from foreloom import run
from foreloom.data.formats.writer import write_series
from foreloom.data.loader import BatchLoader
from foreloom.data.source import Series
from foreloom.models import registry
from foreloom.monitoring.accelerators import peak_flops

MOST_WAIT = 0.02
SYNTHETIC = ("kernel", "ets", "arma")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--ranks", type=int, default=1, help="ranks that share the global batch of 1,024 rows")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the A100's peak that a step uses")
    parser.add_argument("--series", type=int, default=20_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("series from", "a step", "waits", "loader's CPU", "of a step")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "series.arrow"
        rng = np.random.default_rng(0)
        made = rng.normal(size=(asked.series, 2112)).astype(np.float32)
        write_series((Series(f"s{i}", values[None]) for i, values in enumerate(made)), file)
        sources = {"disk": str(file)} | {
            f"synth://{name}": f"synth://{name}?num_series={asked.series}&length=2112" for name in SYNTHETIC
        }
        waits = {name: measure(table, name, path, asked) for name, path in sources.items()}
    Console().print(table)
    sys.exit(waits["disk"] >= MOST_WAIT)


def measure(table: Table, name: str, path: str, asked: Any) -> float:
    """Adds a row; the share of the time that steps waited."""
    recipe = run.load("chronos2-base", [f"data.sources=[{{path: '{path}'}}]"])
    training, data = recipe.sections["training"], run.data_of(recipe)
    model = run.shapes_of(recipe)
    family = registry.get(recipe.sections["model"].family)
    flops = family.flops_per_row(model, data) * training.batch_size / asked.ranks
    peak = peak_flops("NVIDIA A100")
    assert peak is not None
    seconds = flops / (peak * asked.mfu)
    loader = BatchLoader(
        data.open(training.seed, batch_size=training.batch_size),
        batch_size=training.batch_size,
        world_size=asked.ranks,
        num_prefetch=data.num_prefetch,
    )
    batches, waited = iter(loader), 0.0
    next(batches)  # the first is waited for in any run
    cpu, before, began = time.process_time(), time.thread_time(), time.perf_counter()
    for _ in range(asked.steps):
        asked_at = time.perf_counter()
        batch = next(batches)
        came = time.perf_counter()
        waited += came - asked_at
        for micro_batch in batch.micro_batches:
            family.batch(model, micro_batch, torch.device("cpu"))
        time.sleep(max(0.0, seconds - (time.perf_counter() - came)))
    took = time.perf_counter() - began
    own = time.thread_time() - before
    cpu = (time.process_time() - cpu - own) / asked.steps
    loader.close()
    share = waited / took
    table.add_row(name, f"{seconds * 1000:.0f} ms", f"{share:.1%}", f"{cpu * 1000:.0f} ms", f"{cpu / seconds:.0%}")
    return share


if __name__ == "__main__":
    main()
