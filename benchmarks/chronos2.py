"""Chronos-2 beside the chronos-forecasting package: training steps, forecasts and batches, interleaved in one run.

    OMP_NUM_THREADS=2 python benchmarks/chronos2.py            # trains a model first: some minutes
    OMP_NUM_THREADS=2 python benchmarks/chronos2.py --trained FOLDER   # of context 512 and horizon 64, or longer
    OMP_NUM_THREADS=2 python benchmarks/chronos2.py --quick    # does it still run?

Both sides hold the same trained weights, see the same batches (univariate rows without missing values, context 512,
horizon 64) and use fused AdamW. The two take turns step by step, so a busy machine slows both; medians and their ratio
are printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from chronos import Chronos2Pipeline
from rich.console import Console

from batch_building import measure_beside_reference
from foreloom.checkpoint.locate import find_model_folder
from foreloom.data.forecast_input import ForecastInput
from foreloom.data.stream.windows import Windows
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.chronos2.forecast import Chronos2Forecaster
from trained import trained_folder
from turns import Call, compare, training_step

CONTEXT, HORIZON = 512, 64
OVERRIDES = [
    "model.num_layers=8", "model.d_model=256", "model.d_ff=1024", "model.d_kv=64", "model.dropout_rate=0.1",
    f"data.context_length={CONTEXT}", f"data.prediction_length={HORIZON}",
    "training.steps=300", "training.batch_size=16", "optimizer.learning_rate=1e-3",
]  # fmt: skip
"""8 layers, 256 wide, 4 heads of 64, feed-forward 1024, 21 levels; what a quickstart is otherwise."""
SEED = 0


def both_sides(folder: Path) -> tuple[torch.nn.Module, Chronos2Pipeline]:
    """Our module and their pipeline on the same weights."""
    return FAMILY.load(folder), Chronos2Pipeline.from_pretrained(folder)


def random_walks(num_rows: int) -> np.ndarray:
    """float32 (rows, CONTEXT + HORIZON)."""
    steps = np.random.default_rng(SEED).normal(size=(num_rows, CONTEXT + HORIZON))
    return steps.cumsum(1).astype(np.float32)


def training_pair(num_rows: int, folder: Path) -> tuple[Call, Call]:
    ours, pipeline = both_sides(folder)
    walks = random_walks(num_rows)
    zeros = np.zeros(num_rows, np.int64)
    windows = Windows(walks[:, :CONTEXT], walks[:, CONTEXT:], zeros.astype(np.int8), np.arange(num_rows), zeros,
                      zeros.astype(np.int32), zeros)  # fmt: skip
    batch = dict(FAMILY.batch(ours, windows, torch.device("cpu")))
    theirs = {
        "context": batch["context"],
        "future_target": batch["future_target"],
        "group_ids": torch.arange(num_rows),
        "num_output_patches": HORIZON // 16,
    }
    return training_step(ours, batch), training_step(pipeline.model, theirs)


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
    parser.add_argument("--trained", type=Path, help="a trained run or model folder, in place of training one")
    parser.add_argument("--rows", type=int, nargs="+", help="batch sizes in place of the standard ones")
    arguments = parser.parse_args()
    rows = arguments.rows or ([4] if arguments.quick else [32, 256])
    repeats = {size: 1 if arguments.quick else max(5, 640 // size) for size in rows}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of interleaved turns")
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.only != "batches":
            trained = arguments.trained and find_model_folder(arguments.trained)
            folder = trained or trained_folder(Path(temporary), quick=arguments.quick, overrides=OVERRIDES)
        for size in rows:
            if arguments.only in (None, "train"):
                compare(f"training step, batch {size}", training_pair(size, folder), repeats[size])
            if arguments.only in (None, "forecast"):
                compare(f"forecast, {size} rows", forecasting_pair(size, folder), repeats[size])
    if arguments.only in (None, "batches"):
        lengths = [4_096] if arguments.quick else [4_096, 65_536, 1_048_576]
        Console().print(measure_beside_reference(lengths, 3 if arguments.quick else 10))


if __name__ == "__main__":
    main()
