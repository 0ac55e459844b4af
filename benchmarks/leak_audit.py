"""How long `foreloom data audit` takes for many series, and what it finds of planted copies.

python benchmarks/leak_audit.py --num-series 50000 --data-root ../shared/data

Synthetic series (regimes, 512 steps), and 60 stretches of the benchmark among them: rescaled, flipped, reversed, means,
every k-th value. The benchmark is zero_shot.yaml.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foreloom.audit.audit import audit
from foreloom.audit.benchmark import Benchmark
from foreloom.audit.training import training_rows
from foreloom.data.convert import convert
from foreloom.evaluation.tasks import read_tasks

TASKS = Path(__file__).with_name("zero_shot.yaml")
NUM_PLANTED = 60
_SELF, _CHILDREN = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
LEAST_BLOCKS, MOST_BLOCKS = 40, 512
CHANGES = {
    "rescaled": lambda y: 3 * y + 100,
    "flipped": lambda y: -y,
    "reversed": lambda y: y[::-1],
    "means of 12": lambda y: y[: len(y) // 12 * 12].reshape(-1, 12).mean(axis=1),
    "sums of 24": lambda y: y[: len(y) // 24 * 24].reshape(-1, 24).sum(axis=1),
    "every 4th": lambda y: y[::4],
}


def cpu_seconds() -> float:
    """Of this process and those that it forked and that are done."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (_SELF, _CHILDREN))


def plant(benchmark: Benchmark, out: Path) -> None:
    """Stretches at random places of series long enough, of every change as many."""
    random = np.random.default_rng(0)
    factors = {"means of 12": 12, "sums of 24": 24, "every 4th": 4}
    rows = []
    for number in range(NUM_PLANTED):
        name = list(CHANGES)[number % len(CHANGES)]
        factor = factors.get(name, 1)
        long_enough = np.flatnonzero(benchmark.rows.length_R >= 2 * LEAST_BLOCKS * factor)
        values = benchmark.rows.read(int(random.choice(long_enough)))
        length = min(int(random.integers(LEAST_BLOCKS, MOST_BLOCKS)) * factor, len(values))
        start = int(random.integers(len(values) - length + 1))
        copy = CHANGES[name](values[start : start + length]).astype(np.float32)
        rows.append({"item_id": f"{name}, {number}", "target": copy.tolist()})
    pq.write_table(pa.Table.from_pylist(rows), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-series", type=int, default=50_000)
    parser.add_argument("--data-root", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark.of_tasks(read_tasks(TASKS, arguments.data_root))
        plant(benchmark, Path(folder) / "planted.parquet")
        address = f"synth://regimes?num_series={arguments.num_series}&length=512"
        cpu = cpu_seconds()
        convert(address, Path(folder) / "series.arrow", "arrow")
        print(f"{cpu_seconds() - cpu:.0f} s of CPU to make {arguments.num_series:,} series, which do not count")
        figures = {}
        for name in ("planted.parquet", "series.arrow"):
            training, _ = training_rows(Path(folder) / name)
            began, cpu = time.perf_counter(), cpu_seconds()
            found = audit(training, benchmark)
            seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
            figures[name] = cpu
            series = {(one.series, one.transform) for one in found.overlaps}
            print(
                f"{name}: {len(training):,} series, {training.num_points:,} steps against {len(benchmark.rows):,}",
                end="",
            )
            print(f" series, {benchmark.rows.num_points:,} steps: {seconds:.0f} s, {cpu:.0f} s of CPU", end="")
            print(f"; {len({name for name, _ in series}):,} series overlap")
            if name == "planted.parquet":
                there = {name for name, _ in series}
                for change in CHANGES:
                    num = sum(one.startswith(f"{change},") for one in there)
                    print(f"  {change}: {num} of {NUM_PLANTED // len(CHANGES)} found")
        a_series = (figures["series.arrow"] - figures["planted.parquet"]) / arguments.num_series
        print(f"{figures['planted.parquet']:.0f} s for the benchmark, {a_series * 1e3:.3f} ms a series of 512 steps;")
        print(f"so a million on two cores: {(figures['planted.parquet'] + a_series * 1e6) / 120:.1f} minutes")
        own, of_core = (resource.getrusage(who).ru_maxrss / 1e6 for who in (_SELF, _CHILDREN))
        print(
            f"peak memory {own:.2f} GB, and of each core's process {of_core:.2f} GB, shared and mapped pages included"
        )


if __name__ == "__main__":
    main()
