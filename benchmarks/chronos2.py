"""Chronos-2 beside the chronos-forecasting package: training steps, forecasts and batches, interleaved in one run.

    OMP_NUM_THREADS=2 python benchmarks/chronos2.py            # a few minutes
    OMP_NUM_THREADS=2 python benchmarks/chronos2.py --quick    # does it still run?

Both sides hold the same weights, see the same batches (univariate rows without missing values, context 512, horizon 64)
and use fused AdamW. The two take turns step by step, so a busy machine slows both; medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chronos import Chronos2Pipeline
from rich.console import Console

from batch_building import measure_beside_reference
from foreloom.data.forecast_input import ForecastInput
from foreloom.data.stream.windows import Windows
from foreloom.models.chronos2.architecture import Chronos2Config
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.chronos2.forecast import Chronos2Forecaster
from foreloom.models.family import WindowLengths
from turns import Call, compare, training_step

CONTEXT, HORIZON = 512, 64
CONFIG = {"size": "test", "num_layers": 8, "dropout_rate": 0.1}
"""8 layers, 256 wide, 4 heads of 64, feed-forward 1024, 21 levels."""
SEED = 0


def both_sides(
    folder: Path, config: Mapping[str, Any] = CONFIG, lengths: tuple[int, int] = (CONTEXT, HORIZON)
) -> tuple[torch.nn.Module, Chronos2Pipeline]:
    """Our module and their pipeline on the same weights; theirs is loaded from the folder that we write."""
    model = FAMILY.build(Chronos2Config(**config), WindowLengths(*lengths))
    FAMILY.initialize(model, SEED)
    FAMILY.save(model, model.state_dict(), folder)
    return model, Chronos2Pipeline.from_pretrained(folder)


def random_walks(num_rows: int, num_steps: int = CONTEXT + HORIZON) -> np.ndarray:
    """float32 (rows, num_steps)."""
    steps = np.random.default_rng(SEED).normal(size=(num_rows, num_steps))
    return steps.cumsum(1).astype(np.float32)


def training_pair(
    num_rows: int,
    folder: Path,
    config: Mapping[str, Any] = CONFIG,
    lengths: tuple[int, int] = (CONTEXT, HORIZON),
    device: torch.device = torch.device("cpu"),
) -> tuple[Call, Call]:
    """A step of each side; on a GPU in bf16. `lengths` are those of context and horizon."""
    ours, pipeline = both_sides(folder, config, lengths)
    context, horizon = lengths
    walks = random_walks(num_rows, context + horizon)
    zeros = np.zeros(num_rows, np.int64)
    windows = Windows(walks[:, :context], walks[:, context:], zeros.astype(np.int8), np.arange(num_rows), zeros,
                      zeros.astype(np.int32), zeros)  # fmt: skip
    ours.to(device)
    batch = dict(FAMILY.batch(ours, windows, device))
    theirs = {
        "context": batch["context"],
        "future_target": batch["future_target"],
        "group_ids": torch.arange(num_rows, device=device),
        "num_output_patches": horizon // 16,
    }
    return training_step(ours, batch), training_step(pipeline.model.to(device), theirs)


def forecasting_pair(num_rows: int, folder: Path) -> tuple[Call, Call]:
    ours, pipeline = both_sides(folder)
    contexts = random_walks(num_rows)[:, :CONTEXT]
    unknown = np.full((1, HORIZON), np.nan, np.float32)
    inputs = [ForecastInput(context[None], unknown, num_targets=1) for context in contexts]
    forecaster, levels = Chronos2Forecaster(ours), [0.1, 0.5, 0.9]
    return (
        lambda: float(forecaster.predict_quantiles(inputs, HORIZON, levels)[0].sum()),
        lambda: float(pipeline.predict_quantiles(list(contexts), HORIZON, levels)[0][0].sum()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn of small batches")
    parser.add_argument("--only", choices=["train", "forecast", "batches"], help="one of the three")
    parser.add_argument("--rows", type=int, nargs="+", help="batch sizes in place of the standard ones")
    arguments = parser.parse_args()
    rows = arguments.rows or ([4] if arguments.quick else [32, 256])
    repeats = {size: 1 if arguments.quick else max(5, 640 // size) for size in rows}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of interleaved turns")
    for size in rows:
        if arguments.only in (None, "train"):
            with tempfile.TemporaryDirectory() as folder:
                compare(f"training step, batch {size}", training_pair(size, Path(folder)), repeats[size])
        if arguments.only in (None, "forecast"):
            with tempfile.TemporaryDirectory() as folder:
                compare(f"forecast, {size} rows", forecasting_pair(size, Path(folder)), repeats[size])
    if arguments.only in (None, "batches"):
        lengths = [4_096] if arguments.quick else [4_096, 65_536, 1_048_576]
        Console().print(measure_beside_reference(lengths, 3 if arguments.quick else 10))


if __name__ == "__main__":
    main()
