"""What a run says of itself before its first step, and of the model it leaves."""

from __future__ import annotations

import logging
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from foreloom.checkpoint.export import model_card
from foreloom.config.loader import Recipe
from foreloom.data.batch import HeldOut, SourceStatistics
from foreloom.data.loader import BatchLoader
from foreloom.data.synthetic.address import short_name
from foreloom.distributed.mesh import ParallelConfig, mesh_shape
from foreloom.distributed.process import Process, has_group
from foreloom.evaluation.config import tier_tasks
from foreloom.models.family import ModelFamily
from foreloom.training.config import autocast_dtype

logger = logging.getLogger(__name__)

_LONG_SECONDS = 3600.0


def banner_of(
    recipe: Recipe,
    process: Process,
    loader: BatchLoader,
    held_out: HeldOut | None,
    num_steps: int,
    size: tuple[int, int],
) -> dict[str, dict[str, Any]]:
    """What a run says of itself before its first step: titled sections of labels and values."""
    model, data, training = (recipe.sections[name] for name in ("model", "data", "training"))
    optimizer, parallel = recipe.sections["optimizer"], recipe.sections["parallel"]
    dtype = autocast_dtype(training.precision, process.device)
    every = recipe.sections["validation"].steps
    num_parameters, num_trained = size
    share = f"{num_trained:,} ({num_trained / num_parameters:.2%})"
    return {
        "Model": {
            "family": model.family,
            "start": model.pretrained or f"random values, size {model.size}",
            "parameters": num_parameters,
            **({"trained": share} if num_trained < num_parameters else {}),
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
            **{short_name(source.name): _source_in_words(source) for source in loader.dataset.statistics()},
            **data.in_words(),
            "validation": f"{held_out.num_windows:,} samples every {every:,} steps" if held_out else "none",
            "benchmark": _tiers(recipe),
        },
    }


def _tiers(recipe: Recipe) -> str:
    """What is scored, how often: `5 tasks every 200 steps, 15 every 2,000`."""
    config = recipe.sections["benchmark"]
    tasks = tier_tasks(config)
    parts = [f"{len(tasks[tier])} tasks every {steps:,} steps" for tier, steps in config.tiers().items()]
    return ", ".join(parts) or "none"


def _source_in_words(source: SourceStatistics) -> str:
    left_out = "".join(f" ({number:,} {reason})" for reason, number in source.left_out.items() if number)
    roles = f"; {source.roles}" if source.roles else ""
    return f"{source.num_items:,} {source.unit}, {source.share:.0%} of the samples{left_out}{roles}"


def _in_epochs(num_steps: int, loader: BatchLoader) -> str:
    if loader.num_epoch_batches is None:
        return ""
    return f" ({num_steps / loader.num_epoch_batches:.3g} epochs of {loader.dataset.num_epoch_samples:,} samples)"


def _strategy(parallel: ParallelConfig, process: Process, num_parameters: int) -> str:
    if not has_group():
        return "single process"
    shape = mesh_shape(parallel, world_size=process.world_size, num_parameters=num_parameters)
    strategy = "ddp" if shape.strategy == "ddp" else f"fsdp, {shape.dp_replicate} x {shape.dp_shard}"
    return f"{strategy}, experts over {shape.ep}" if shape.ep > 1 else strategy


def card_of(
    recipe: Recipe, run_dir: Path, family: ModelFamily, banner: Mapping[str, Mapping[str, Any]]
) -> Callable[[int], str]:
    """The model card of a step: the banner, without the paths of this machine."""
    base = recipe.sections["model"].pretrained
    is_path = base is not None and Path(base).exists()
    start = {"start": "the weights of an earlier run or a folder"} if is_path else {}
    facts = {**banner, "Model": {**banner["Model"], **start}}
    return lambda step: model_card(run_dir.name, family, facts, base=None if is_path else base, step=step)


def warn_of_cost(flops: float, world_size: int) -> None:
    """Say what a long run will take on a CPU, before it has taken it: FLOPs by the speed of a matrix product here."""
    side = 384
    a = torch.ones(side, side)
    seconds = min(timeit.repeat(lambda: a @ a, number=1, repeat=4))
    least = flops / world_size * seconds / (2 * side**3)
    if least > _LONG_SECONDS:
        logger.warning(
            "on this CPU the run takes at least %s to its last step (%.2g FLOPs). Fewer training.steps, shorter "
            "windows or a smaller model cost less; docs/aws_gpu.md says how to get a GPU.",
            f"{least / 86400:,.0f} days" if least > 2 * 86400 else f"{least / 3600:,.1f} hours",
            flops,
        )
