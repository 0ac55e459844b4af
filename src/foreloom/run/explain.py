"""What a recipe's step takes of a device, set against what the device has, for people and programs."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import torch

from foreloom.config.loader import Recipe
from foreloom.distributed.launcher import choose_device, read_launch
from foreloom.monitoring.health import bytes_in_words
from foreloom.run.machine import device_bytes, parse_bytes
from foreloom.run.memory import DeviceType, MemoryUse, count_memory
from foreloom.run.micro_batch import exact_split, fitting, remedy
from foreloom.run.recipe import data_of


def explain(recipe: Recipe, *, num_gpus: int = 0, memory: str | None = None) -> dict[str, Any]:
    """Bytes by term at the recipe's micro-batch, the largest micro-batch that fits, and sentences, ready for JSON.

    On `num_gpus` GPUs of `memory` ("80GB") each; on the device that the recipe finds here where neither is given.
    ValueError for a memory that is none, and for a model that cannot be built.
    """
    training, data = recipe.sections["training"], data_of(recipe)
    device = _device(recipe)
    kind: DeviceType = "cuda" if num_gpus or memory or device.type != "cpu" else "cpu"
    world_size = max(num_gpus, 1)
    size = parse_bytes(memory) if memory else device_bytes(device) if device.type == kind else None
    notes, largest = [], data.full_rows
    if data.is_there():
        largest = data.open(training.seed, batch_size=training.batch_size).largest
    else:
        notes.append("The data are not here: counted for rows that have no company in a group.")

    share = -(-training.batch_size // world_size)
    fits, refusal = None, "How much the device holds is not known here: --memory 80GB tells."
    if size is not None:
        budget = int(size * training.target_memory_usage)
        try:
            fits, _ = fitting(recipe, largest, budget, device=kind, world_size=world_size)
        except ValueError as error:
            refusal = f"Nothing fits: {error}"
    asked = training.micro_batch_size
    rows = min((fits or 1) if asked == "auto" else asked or share, share)
    its = {"device": kind, "world_size": world_size, "accumulates": rows < share}
    use = count_memory(recipe, largest, rows, **its)
    notes += [refusal] if fits is None else _what_fits(training, fits, world_size, size)
    if size is not None:
        notes.append(_verdict(use, size, training.target_memory_usage))
    return {
        "where": f"{world_size:,} x {kind}, {use.strategy}" if world_size > 1 else f"one device ({kind})",
        **dataclasses.asdict(use),
        "total": use.total,
        "device_bytes": size,
        "target_memory_usage": training.target_memory_usage,
        "fits": fits,
        "sentences": notes,
    }


def _device(recipe: Recipe) -> torch.device:
    """The one that the recipe would train on here."""
    setting, has_mps = recipe.sections["training"].device, torch.backends.mps.is_available()
    return torch.device(
        choose_device(setting, read_launch(os.environ), has_mps=has_mps, num_cuda=torch.cuda.device_count())
    )


def _what_fits(training: Any, fits: int, world_size: int, size: int | None) -> list[str]:
    budget = bytes_in_words(int((size or 0) * training.target_memory_usage))
    lines = [f"Within {budget} a device ({training.target_memory_usage:.0%}), micro-batches of {fits:,} rows fit."]
    try:
        rows, times = exact_split(training.batch_size, world_size, fits)
        equal = f"{rows:,} rows x {times:,} micro-batches x {world_size:,} devices = {training.batch_size:,} exactly."
        lines.append(f"In equal parts: {equal}")
    except ValueError as error:
        lines.append(f"The loader keeps the global batch exact all the same, though {error}")
    return lines


def _verdict(use: MemoryUse, size: int, target: float) -> str:
    if use.total > size:
        return f"It does not fit: {bytes_in_words(size)} are there. {remedy(use)}"
    if use.total > size * target:
        return f"It may not fit: what cannot be counted has {bytes_in_words(size - use.total)} left. {remedy(use)}"
    return f"It fits, with {bytes_in_words(size - use.total)} to spare."
