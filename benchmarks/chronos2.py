"""Chronos-2 beside the chronos-forecasting package: training steps, forecasts and batches, interleaved in one run.

    OMP_NUM_THREADS=2 python benchmarks/chronos2.py            # trains a model first: some minutes
    OMP_NUM_THREADS=1 python benchmarks/chronos2.py --cpu-time --only forecast --trained FOLDER
    OMP_NUM_THREADS=2 python benchmarks/chronos2.py --quick    # does it still run?

Both sides hold the same trained weights, see the same batches (univariate rows without missing values, context 512,
horizon 64: what --trained names must allow as much) and use fused AdamW. The two take turns step by step, so a busy
machine slows both; medians and their ratio are printed. --cpu-time, with one thread, is what that disturbs least.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from chronos import Chronos2Pipeline
from rich.console import Console

from batch_building import measure_beside_reference
from foreloom.data.forecast_input import ForecastInput
from foreloom.data.stream.windows import Windows
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.chronos2.forecast import Chronos2Forecaster
from trained import trained_folder
from turns import Call, Table, parser, random_walks, training_step

CONTEXT, HORIZON = 512, 64
OVERRIDES = [
    "model.num_layers=8", "model.d_model=256", "model.d_ff=1024", "model.d_kv=64", "model.dropout_rate=0.1",
    f"data.context_length={CONTEXT}", f"data.prediction_length={HORIZON}",
    "training.steps=300", "training.batch_size=16", "optimizer.learning_rate=1e-3",
]  # fmt: skip
"""8 layers, 256 wide, 4 heads of 64, feed-forward 1024, 21 levels; what a quickstart is otherwise."""


def both_sides(folder: Path) -> tuple[torch.nn.Module, Chronos2Pipeline]:
    """Our module and their pipeline on the same weights."""
    return FAMILY.load(folder), Chronos2Pipeline.from_pretrained(folder)


def training_pair(
    num_rows: int,
    folder: Path,
    lengths: tuple[int, int] = (CONTEXT, HORIZON),
    device: torch.device = torch.device("cpu"),
) -> tuple[Call, Call]:
    ours, pipeline = both_sides(folder)
    context, horizon = lengths
    walks = random_walks(num_rows, context + horizon)
    zeros = np.zeros(num_rows, np.int64)
    windows = Windows(walks[:, :context], walks[:, context:], zeros.astype(np.int8), np.arange(num_rows), zeros,
                      zeros.astype(np.int32), zeros)  # fmt: skip
    batch = dict(FAMILY.batch(ours, windows, device))
    theirs = {
        "context": batch["context"],
        "future_target": batch["future_target"],
        "group_ids": torch.arange(num_rows, device=device),
        "num_output_patches": horizon // 16,
    }
    return training_step(ours.to(device), batch), training_step(pipeline.model.to(device), theirs)


def forecasting_pair(num_rows: int, folder: Path) -> tuple[Call, Call]:
    ours, pipeline = both_sides(folder)
    contexts = random_walks(num_rows, CONTEXT)
    unknown = np.full((1, HORIZON), np.nan, np.float32)
    inputs = [ForecastInput(context[None], unknown, num_targets=1) for context in contexts]
    forecaster, levels = Chronos2Forecaster(ours), [0.1, 0.5, 0.9]
    return (
        lambda: torch.from_numpy(np.stack(forecaster.predict_quantiles(inputs, HORIZON, levels))),
        lambda: torch.stack(pipeline.predict_quantiles(list(contexts), HORIZON, levels)[0]),
    )


def main() -> None:
    arguments = parser(__doc__, turns=5, only=["train", "forecast", "batches"]).parse_args()
    wants = lambda what: arguments.only in (None, what)
    rows = arguments.rows or ([4] if arguments.quick else [32, 256])
    if arguments.only != "batches":
        with trained_folder(arguments.trained, quick=arguments.quick, overrides=OVERRIDES) as folder:
            table = Table(arguments, "chronos-forecasting")
            for size in rows:
                times = max(1, 128 // size)  # small ones scatter more
                if wants("train"):
                    table.compare(f"training step, batch {size}", training_pair(size, folder), trains=True, times=times)
                if wants("forecast"):
                    pair = forecasting_pair(size, folder)
                    table.compare(f"forecast, {size} rows", pair, tolerance=1e-3, times=times)
    if wants("batches"):
        lengths = [4_096] if arguments.quick else [4_096, 65_536, 1_048_576]
        Console().print(measure_beside_reference(lengths, 3 if arguments.quick else 10))


if __name__ == "__main__":
    main()
