"""Which micro-batch fits a device: the largest by count, how a global batch is cut into such, what to change where none
does."""

from __future__ import annotations

import functools
from collections.abc import Callable

from foreloom.config.loader import Recipe
from foreloom.data.batch import MicroBatch
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import max_over_ranks
from foreloom.monitoring.health import bytes_in_words
from foreloom.run.machine import device_bytes, ranks_on_machine
from foreloom.run.memory import DeviceType, MemoryUse, count_memory


def automatic_micro_batch(recipe: Recipe, largest: Callable[[int], MicroBatch], process: Process) -> MemoryUse:
    """Of the micro-batches that `training.micro_batch_size: auto` comes to. Collective; all ranks get the same.

    ValueError where not one row fits, or the device does not tell how much it holds.
    """
    device, target = process.device, recipe.sections["training"].target_memory_usage
    size = device_bytes(device, ranks_on_machine(world_size=process.world_size))
    if size is None:
        raise ValueError(f"training.micro_batch_size: auto: {device} does not tell its memory; give a number of rows.")
    kind: DeviceType = "cpu" if device.type == "cpu" else "cuda"
    try:
        rows, use_of = fitting(recipe, largest, int(size * target), device=kind, world_size=process.world_size)
    except ValueError as error:
        raise ValueError(f"training.micro_batch_size: auto: {error}") from None
    return use_of(-max_over_ranks(-rows, process))


def fitting(
    recipe: Recipe,
    largest: Callable[[int], MicroBatch],
    budget: int,
    *,
    device: DeviceType,
    world_size: int,
) -> tuple[int, Callable[[int], MemoryUse]]:
    """Rows of the micro-batches of a step, as few and as equal as `budget` bytes a device allow, and what counts any
    other number. ValueError where not one row fits, with what would."""
    share = -(-recipe.sections["training"].batch_size // world_size)

    @functools.cache
    def use_of(num_rows: int) -> MemoryUse:
        accumulates = num_rows < share
        return count_memory(recipe, largest, num_rows, device=device, world_size=world_size, accumulates=accumulates)

    rows = most_rows(lambda n: use_of(n).total, share, budget)
    if not rows:
        use = use_of(1)
        its, allowed = bytes_in_words(use.total), bytes_in_words(budget)
        raise ValueError(f"one row takes {its} by count, and {allowed} may be used. {remedy(use)}")
    return -(-share // -(-share // rows)), use_of


_SHARE = "Share the model between more devices (parallel.strategy=fsdp), take a smaller one, or train an adapter."
_RECOMPUTE = "Set training.activation_checkpointing=true and training.precision=bf16, or shorten the rows."
_REMEDIES = {
    "weights": _SHARE,
    "gradients": _SHARE,
    "optimizer": f"{_SHARE} optimizer.name=sgd remembers half of what adamw does.",
    "gathered": "Take a smaller model, or one of smaller blocks.",
    "inputs": "Shorten the rows.",
    "activations": _RECOMPUTE,
    "logits": "Shorten the rows, or take a smaller vocabulary.",
    "working": _RECOMPUTE,
}
_OF_THE_MODEL = ("weights", "gradients", "optimizer", "gathered")


def remedy(use: MemoryUse) -> str:
    """What would make the largest term smaller, as sentences."""
    largest = max(use.terms, key=lambda term: use.terms[term])
    of_rows = largest not in _OF_THE_MODEL and use.num_rows > 1
    fewer = "Lower training.micro_batch_size (results stay the same). " if of_rows else ""
    return f"Most of it goes into {largest}. {fewer}{_REMEDIES[largest]}"


def most_rows(total_of: Callable[[int], int], most: int, budget: int) -> int:
    """The largest of 1 .. `most` rows whose bytes, `total_of` them, are within `budget`; 0 where a row is too much.

    The bytes grow with the rows, nearly in a straight line, so a handful of counts do.
    """
    high = most, total_of(most)
    if high[1] <= budget:
        return most
    low = 1, total_of(1)
    if low[1] > budget:
        return 0
    while high[0] - low[0] > 1:
        guess = low[0] + (budget - low[1]) * (high[0] - low[0]) // (high[1] - low[1])
        guess = min(max(guess, low[0] + 1), high[0] - 1)
        found = guess, total_of(guess)
        low, high = (found, high) if found[1] <= budget else (low, found)
    return low[0]


def exact_split(target: int, world_size: int, most: int) -> tuple[int, int]:
    """Rows of a micro-batch, the most up to `most`, and micro-batches a step, so that micro-batch x accumulation x
    world size is `target`. ValueError names the nearest targets for which there are such."""
    assert target > 0 and world_size > 0 and most > 0
    share, rest = divmod(target, world_size)
    if rest or not share:
        near = [n * world_size for n in (share, share + 1) if n]
        raise ValueError(
            f"a global batch of {target:,} rows is not the same number of rows on each of {world_size:,} devices; the "
            f"nearest that are: {' and '.join(f'{n:,}' for n in near)}."
        )
    rows = next(n for n in range(min(most, share), 0, -1) if share % n == 0)
    return rows, share // rows
