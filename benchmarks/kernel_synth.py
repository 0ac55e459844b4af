"""KernelSynth beside the procedure of the original, and every synthetic process streamed into training batches.

    OMP_NUM_THREADS=2 python benchmarks/kernel_synth.py            # needs scikit-learn: pip install scikit-learn
    OMP_NUM_THREADS=2 python benchmarks/kernel_synth.py --quick

Part one makes the same number of series of 1,024 steps with foreloom and as the original does, which builds the kernel
of each series from scikit-learn's and calls `GaussianProcessRegressor.sample_y`: in turns, so a busy machine slows
both; both from the same kernels, so neither has the easier ones. It is skipped, with a note, where scikit-learn is not
installed. Part two counts windows of 512 + 64 steps a second that the loader builds from each process alone.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import operator
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.loader import BatchLoader
from foreloom.data.stream.dataset import SeriesDataset
from foreloom.data.synthetic import registry
from foreloom.data.synthetic.kernel import BANK, PROCESS, Kernel, KernelConfig, compositions
from foreloom.data.synthetic.process import Draws

LENGTH, MAX_KERNELS = 1024, 5
CONTEXT, HORIZON, ROWS = 512, 64, 256


def scikit_bank() -> dict[Kernel, Any]:
    """The bank in scikit-learn's kernels."""
    from sklearn.gaussian_process import kernels

    make = {
        "periodic": lambda period: kernels.ExpSineSquared(periodicity=period / LENGTH),
        "linear": lambda sigma: kernels.DotProduct(sigma_0=sigma),
        "rbf": lambda scale: kernels.RBF(length_scale=scale),
        "rational": lambda alpha: kernels.RationalQuadratic(alpha=alpha),
        "white": lambda variance: kernels.WhiteKernel(noise_level=variance),
        "constant": lambda _: kernels.ConstantKernel(),
    }
    return {kernel: make[kernel.form](kernel.parameter) for kernel in BANK}


def one_by_one(item_B: np.ndarray, bank: dict[Kernel, Any]) -> np.ndarray:
    """Series made as in the original."""
    from sklearn.gaussian_process import GaussianProcessRegressor

    points = np.linspace(0, 1, LENGTH)[:, None]
    series = []
    for item, (kernels, times) in zip(item_B, compositions(Draws(0, PROCESS.name, item_B), MAX_KERNELS), strict=True):
        kernel = bank[kernels[0]]
        for other, multiplies in zip(kernels[1:], times, strict=True):
            kernel = (operator.mul if multiplies else operator.add)(kernel, bank[other])
        series.append(GaussianProcessRegressor(kernel=kernel).sample_y(points, random_state=int(item))[:, 0])
    return np.stack(series)


def measure_beside_original(num_turns: int, num_series: int) -> Table:
    """Median time of a series, both sides in turns of the same series."""
    bank = scikit_bank()
    sides: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "foreloom": lambda item_B: PROCESS.generate(
            Draws(0, PROCESS.name, item_B), LENGTH, KernelConfig(max_kernels=MAX_KERNELS)
        ),
        "scikit-learn": functools.partial(one_by_one, bank=bank),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(num_turns + 1):
        item_B = np.arange(turn * num_series, (turn + 1) * num_series)
        for name, make in sides.items():
            began = time.perf_counter()
            series_BT = make(item_B)
            seconds[name].append((time.perf_counter() - began) / num_series)
            assert series_BT.shape == (num_series, LENGTH)
            assert np.isfinite(series_BT).all()
    ours, theirs = (statistics.median(seconds[name][1:]) for name in sides)
    table = Table(
        title=f"KernelSynth, {LENGTH} steps, medians of {num_turns} turns of {num_series} series", title_justify="left"
    )
    for column in ("", "foreloom", "original, scikit-learn", "ratio"):
        table.add_column(column, justify="right")
    table.add_row("a series", f"{ours * 1e3:.2f} ms", f"{theirs * 1e3:.0f} ms", f"{theirs / ours:.0f}x")
    table.add_row("series a second", f"{1 / ours:,.0f}", f"{1 / theirs:.2f}", "")
    return table


def measure_streaming(num_batches: int) -> Table:
    """Windows a second of each process, the first batch left out."""
    table = Table(title=f"batches of {ROWS} windows of {CONTEXT} + {HORIZON} steps", title_justify="left")
    for column in ("process", "steps made a series", "windows a second", "first batch"):
        table.add_column(column, justify="right")
    for name in registry.names():
        config = DataConfig(
            sources=(SourceConfig(path=f"synth://{name}"),),
            context_length=CONTEXT,
            prediction_length=HORIZON,
            num_prefetch=0,
        )
        loader = BatchLoader(SeriesDataset(config, seed=0), batch_size=ROWS)
        seconds, first = [], 0
        for _ in range(num_batches + 1):
            began = time.perf_counter()
            first = loader.batch(first).next_sample
            seconds.append(time.perf_counter() - began)
        rate = ROWS / statistics.median(seconds[1:])
        table.add_row(name, registry.get(name).length, f"{rate:,.0f}", f"{seconds[0]:.2f} s")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few series and batches")
    arguments = parser.parse_args()
    console = Console()
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if importlib.util.find_spec("sklearn") is None:
        console.print("scikit-learn is not installed: pip install scikit-learn to compare with the original procedure.")
    else:
        console.print(measure_beside_original(*((2, 4) if arguments.quick else (7, 8))))
    console.print(measure_streaming(3 if arguments.quick else 9))


if __name__ == "__main__":
    main()
