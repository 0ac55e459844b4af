"""What a run says of itself before its first step: model, optimization, devices and data in a few lines."""

from __future__ import annotations

from typing import Any

from foreloom.config.loader import Recipe
from foreloom.data.loader import WindowLoader
from foreloom.data.synthetic.address import short_name
from foreloom.data.validation import ValidationWindows
from foreloom.distributed.mesh import ParallelConfig, mesh_shape
from foreloom.distributed.process import Process, has_group
from foreloom.training.config import autocast_dtype


def banner(
    recipe: Recipe,
    process: Process,
    loader: WindowLoader,
    held_out: ValidationWindows | None,
    benchmark: str,
    num_steps: int,
    num_parameters: int,
) -> dict[str, dict[str, Any]]:
    """Titled sections of labels and values; `benchmark` says what is scored and when."""
    model, data, training = (recipe.sections[name] for name in ("model", "data", "training"))
    optimizer, parallel = recipe.sections["optimizer"], recipe.sections["parallel"]
    dtype = autocast_dtype(training.precision, process.device)
    every = recipe.sections["validation"].steps
    return {
        "Model": {
            "family": model.family,
            "start": model.pretrained or f"random values, size {model.size}",
            "parameters": num_parameters,
        },
        "Optimization": {
            "steps": f"{num_steps:,}" + _in_epochs(num_steps, loader),
            "global batch": f"{training.batch_size:,} rows",
            "learning rate": f"{optimizer.learning_rate:g}, {optimizer.schedule}",
            "weight decay": optimizer.weight_decay,
        },
        "Distributed": {
            "device": str(process.device),
            "ranks": process.world_size,
            "strategy": _strategy(parallel, process, num_parameters),
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
        },
        "Data": {
            **{
                short_name(source.name): f"{source.num_drawn:,} series, {source.probability:.0%} of the samples"
                + (f" ({source.num_short:,} too short)" if source.num_short else "")
                + (f" ({source.num_quarantined:,} in quarantine)" if source.num_quarantined else "")
                for source in loader.source_statistics()
            },
            "window": f"{data.context_length:,} context, {data.prediction_length:,} horizon",
            "validation": f"{held_out.num_windows:,} windows every {every:,} steps" if held_out else "none",
            "benchmark": benchmark,
        },
    }


def _in_epochs(num_steps: int, loader: WindowLoader) -> str:
    if loader.num_epoch_batches is None:
        return ""
    return f" ({num_steps / loader.num_epoch_batches:.3g} epochs of {loader.num_windows:,} windows)"


def _strategy(parallel: ParallelConfig, process: Process, num_parameters: int) -> str:
    if not has_group():
        return "single process"
    shape = mesh_shape(parallel, world_size=process.world_size, num_parameters=num_parameters)
    return "ddp" if shape.strategy == "ddp" else f"fsdp, {shape.dp_replicate} x {shape.dp_shard}"
