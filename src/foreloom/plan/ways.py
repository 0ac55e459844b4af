"""The ways to train a recipe on a cluster, side by side: what each holds, moves, takes and costs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from foreloom.config.loader import Recipe
from foreloom.data.loader import BatchLoader
from foreloom.distributed.experts import shared_modules
from foreloom.distributed.mesh import MeshShape, mesh_shape
from foreloom.distributed.parallelize import find_blocks
from foreloom.models import registry
from foreloom.models.common.count import ParameterKind
from foreloom.monitoring.accelerators import accelerators
from foreloom.monitoring.health import bytes_in_words
from foreloom.plan.cluster import Cluster
from foreloom.plan.communication import (
    KINDS,
    MASTER_BYTES,
    ParameterCounts,
    SharedExperts,
    TensorSize,
    collectives_of_step,
    count_parameters,
    count_shards,
)
from foreloom.plan.estimate import RunCost, StepTime, cost_run, time_step
from foreloom.run.memory import MemoryUse, count_step
from foreloom.run.micro_batch import exact_split, most_rows, remedy
from foreloom.run.recipe import choose_trained, data_of, shapes_of

_MOST_GPUS = 2**16
_MOST_NAMED = 4


@dataclass(frozen=True)
class Way:
    """One strategy, with or without activation checkpointing."""

    name: str
    dp_replicate: int
    dp_shard: int
    recomputes: bool
    is_recipes: bool
    """Is it what the recipe says?"""
    fits: int
    """Rows of the largest micro-batches that fit, as equal as a step allows; 0 where not one row does."""
    num_micro_batches: int
    """A step and device, of those."""
    memory: MemoryUse
    """Of a device, with them; of one row where nothing fits."""
    moved: dict[str, float]
    """Bytes that a device sends in a step, by collective."""
    step: StepTime
    run: RunCost | None
    """None where the length of the run is not known."""


@dataclass(frozen=True)
class Plan:
    """A recipe on a cluster. `notes` say what is assumed."""

    where: str
    precision: str
    counts: ParameterCounts
    flops_per_row: float
    """Forward and backward, attention included; nothing computed twice."""
    batch_size: int
    num_steps: int | None
    device_bytes: int
    budget_bytes: int
    """What of them may be filled."""
    ways: tuple[Way, ...]
    split: str
    """How the global batch is cut, the recipe's way."""
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return any(way.fits for way in self.ways)

    def to_json(self) -> dict[str, Any]:
        found = dataclasses.asdict(self) | {"flops_per_step": self.flops_per_row * self.batch_size}
        for way, its in zip(self.ways, found["ways"], strict=True):
            its["memory"]["total"], its["step"]["total"] = way.memory.total, way.step.total
        return found


class _Strategy(NamedTuple):
    name: str
    shape: MeshShape


def plan(recipe: Recipe, cluster: Cluster, precision: str) -> Plan:
    """Count and estimate every way. ValueError for a model that cannot be built, and for a mesh that the recipe asks
    for and the cluster has not."""
    training, data = recipe.sections["training"], data_of(recipe)
    recipe = _with(recipe, "training", precision=precision)
    notes = _assumptions(cluster, training.target_memory_usage, precision)
    largest, num_steps = data.full_rows, training.steps
    if data.is_there():
        dataset = data.open(training.seed, batch_size=training.batch_size)
        loader = BatchLoader(dataset, batch_size=training.batch_size)
        largest, num_steps = dataset.largest, training.in_steps(loader.num_epoch_batches).num_steps
    else:
        notes.append("The data are not here: rows are counted as long as any, without company in a group.")
        if num_steps is None:
            notes.append("How many steps training.epochs are is not known without the data, so the run has no length.")
    model = shapes_of(recipe)
    hooks = registry.get(recipe.sections["model"].family).experts
    if hooks and hooks.needs_survey and hooks.needs_survey(model):
        notes.append(
            "The balance of experts is that of the global batch, so encoder and router run once more before each step: "
            "neither the time of that nor what FSDP2 gathers for it is counted."
        )
    flops_per_row = registry.get(recipe.sections["model"].family).flops_per_row(model, data)
    choose_trained(model, recipe)
    tensors = tensors_of(recipe, model)
    counts = count_parameters(tensors)
    has_blocks = counts.in_blocks > 0
    own = mesh_shape(recipe.sections["parallel"], world_size=cluster.num_gpus, num_parameters=counts.total)
    budget = int(cluster.accelerator.memory_bytes * training.target_memory_usage)
    count = functools.cache(functools.partial(_count, recipe, largest))
    ways = []
    for recomputes in (False, True) if has_blocks else (False,):
        for strategy in _strategies(cluster, own, has_blocks):
            is_recipes = strategy.shape == own and recomputes == training.activation_checkpointing
            found = _way(
                recipe, cluster, strategy, recomputes, count, tensors, flops_per_row, budget, num_steps, is_recipes
            )
            ways.append(found)
    chosen = next(way for way in ways if way.is_recipes)
    return Plan(
        f"{cluster.num_gpus:,} x {cluster.accelerator.name}",
        precision,
        counts,
        flops_per_row,
        training.batch_size,
        num_steps,
        cluster.accelerator.memory_bytes,
        budget,
        tuple(ways),
        _split(training.batch_size, cluster.num_gpus, chosen) if chosen.fits else "",
        (*notes, *_what_would_fit(ways, count, budget, training.target_memory_usage)),
    )


def _with(recipe: Recipe, section: str, **changed: Any) -> Recipe:
    replaced = dataclasses.replace(recipe.sections[section], **changed)
    return dataclasses.replace(recipe, sections={**recipe.sections, section: replaced})


def tensors_of(recipe: Recipe, model: nn.Module) -> list[TensorSize]:
    """Of a model that is to be trained as the recipe says; on any device, the meta device too. ValueError where ranks
    cannot share the experts as `parallel.ep` has it."""
    family = registry.get(recipe.sections["model"].family)
    inside = {id(p) for _, block in find_blocks(model, family.sharding) for p in block.parameters()}
    kinds = family.kinds(model) if recipe.sections["optimizer"].name == "muon" else {}
    ep, found = recipe.sections["parallel"].ep, []
    shared = {id(p) for one in shared_modules(model, family.sharding, ep) for p in one.parameters()} if ep > 1 else ()
    for name, p in model.named_parameters():
        rows = p.shape[0] if p.ndim else 1
        is_muons = p.requires_grad and kinds.get(name) is ParameterKind.HIDDEN
        size, of = p.numel() // max(rows, 1), id(p)
        found.append(TensorSize(rows, size, p.requires_grad, of in inside, is_muons, of in shared))
    return found


def _strategies(cluster: Cluster, own: MeshShape, has_blocks: bool) -> list[_Strategy]:
    """DDP, FSDP2 over all devices, HSDP as the recipe has it or with a copy a machine."""
    number, machine, ep = cluster.num_gpus, cluster.per_machine, own.ep
    if number == 1:
        return [_Strategy("one device", own)]
    found = [_Strategy("DDP", MeshShape("ddp", number, 1, ep))]
    if has_blocks:
        found.append(_Strategy("FSDP2", MeshShape("fsdp", 1, number, ep)))
        if own.strategy == "fsdp" and own.dp_replicate > 1:
            found.append(_Strategy("HSDP", own))
        elif 1 < machine < number and number % machine == 0:
            found.append(_Strategy("HSDP", MeshShape("fsdp", number // machine, machine, ep)))
    return found


Count = Callable[[bool, bool, bool, int], Callable[[int, bool], MemoryUse]]
"""f(recomputes, is sharded, keeps gradients, rows) -> what `count_step` gives."""


def _count(
    recipe: Recipe, largest: Callable[[int], Any], recomputes: bool, is_sharded: bool, keeps: bool, num_rows: int
) -> Callable[[int, bool], MemoryUse]:
    recipe = _with(recipe, "training", activation_checkpointing=recomputes)
    return count_step(recipe, largest, num_rows, device="cuda", keeps_gradients=keeps, is_sharded=is_sharded)


def _way(
    recipe: Recipe,
    cluster: Cluster,
    strategy: _Strategy,
    recomputes: bool,
    count: Count,
    tensors: Sequence[TensorSize],
    flops_per_row: float,
    budget: int,
    num_steps: int | None,
    is_recipes: bool,
) -> Way:
    shape, is_sharded = strategy.shape, strategy.shape.strategy == "fsdp"
    share = -(-recipe.sections["training"].batch_size // cluster.num_gpus)

    def use_of(num_rows: int) -> MemoryUse:
        accumulates = num_rows < share
        keeps = accumulates or cluster.num_gpus > 1
        return count(recomputes, is_sharded, keeps, num_rows)(shape.dp_shard, accumulates)

    rows = most_rows(lambda n: use_of(n).total, share, budget)
    num_micro_batches = -(-share // (rows or 1))
    fits = rows and -(-share // num_micro_batches)
    use = use_of(fits or 1)
    counts, of_experts = count_shards(tensors, shape)
    collectives = collectives_of_step(
        counts,
        shape,
        experts=SharedExperts(of_experts, use.exchanged_bytes),
        num_micro_batches=num_micro_batches,
        compute_bytes=2 if recipe.sections["training"].precision == "bf16" else MASTER_BYTES,
        per_machine=cluster.per_machine,
    )
    step = time_step(
        cluster,
        flops=flops_per_row * share,
        collectives=collectives,
        optimizer=recipe.sections["optimizer"].name,
        num_updated=counts.trained / shape.dp_shard + of_experts.trained / shape.ep,
        recomputes=recomputes,
    )
    return Way(
        strategy.name,
        shape.dp_replicate,
        shape.dp_shard,
        recomputes,
        is_recipes,
        fits,
        num_micro_batches,
        use,
        {kind: sum(one.sent_bytes for one in collectives if one.kind == kind) for kind in KINDS},
        step,
        None if num_steps is None else cost_run(cluster, step.total, num_steps),
    )


def _split(batch_size: int, num_gpus: int, way: Way) -> str:
    """How the loader cuts the global batch, which it keeps exact, and whether all devices get as much."""
    rows = f"{way.fits:,} rows x {way.num_micro_batches:,} micro-batches"
    try:
        exact, times = exact_split(batch_size, num_gpus, way.fits)
    except ValueError as error:
        return f"{rows} at most; {error} The loader keeps the batch exact all the same, and some devices wait."
    return f"in equal parts, {exact:,} rows x {times:,} micro-batches x {num_gpus:,} GPUs = {batch_size:,} exactly."


def _what_would_fit(ways: list[Way], count: Count, budget: int, share: float) -> list[str]:
    """Sentences where no way has room for a row."""
    if any(way.fits for way in ways):
        return []
    way = min(ways, key=lambda one: one.memory.total)
    least = way.memory
    notes = [
        f"Nothing fits: of all ways {way.name}{', blocks recomputed,' if way.recomputes else ''} takes least, "
        f"{bytes_in_words(least.total)} for one row, and {bytes_in_words(budget)} may be used. {remedy(least)}"
    ]
    by_memory = sorted(accelerators().values(), key=lambda one: one.memory_bytes)
    larger = [one.name for one in by_memory if least.total <= one.memory_bytes * share]
    if larger:
        notes.append(f"As many of these would do, and of larger ones: {', '.join(larger[:_MOST_NAMED])}.")
    if sharded := [one for one in ways if one.dp_shard > 1]:
        way = min(sharded, key=lambda one: one.memory.total)
        use_of, number = count(way.recomputes, True, True, 1), way.dp_shard
        while number < _MOST_GPUS and use_of(number, False).total > budget:
            number *= 2
        enough = use_of(number, False).total <= budget
        notes.append(
            f"So would {number:,} of these GPUs, under FSDP2."
            if enough
            else "More of these GPUs would not do: what does not fit is no share of the model."
        )
    return notes


def _assumptions(cluster: Cluster, share: float, precision: str) -> list[str]:
    gpu = cluster.accelerator
    full = f" (not TF32, of {gpu.tf32_flops / 1e12:,.4g})" if precision == "fp32" else ""
    rate = lambda figure, option: f"{figure / 1e9:,.4g} GB/s" if math.isfinite(figure) else f"no limit told ({option})"
    price = f"{cluster.price:g} a GPU and hour (--price)" if cluster.price is not None else "not stated (--price)"
    power = "not stated (--watts)" if gpu.watts is None else f"{gpu.watts:,.0f} W a GPU, hosts and cooling left out"
    notes = [
        f"{gpu.name}: {bytes_in_words(gpu.memory_bytes)}, of which {share:.0%} may be filled "
        f"(training.target_memory_usage); {cluster.peak_flops / 1e12:,.4g} TFLOP/s in {precision}{full}; to its memory "
        f"{rate(gpu.bandwidth, '--bandwidth')}. Source: {gpu.source}.",
        f"Forward and backward reach {cluster.mfu:.0%} of that (--mfu: a run's log tells yours); blocks that are "
        "computed again cost a third more. The update is bound by memory.",
        f"Power: {power}. Price: {price}.",
    ]
    if cluster.num_gpus > 1:
        notes.insert(
            2,
            f"{cluster.per_machine} GPUs a machine (--per-machine); from one to the others "
            f"{rate(gpu.link, '--link')}, out of a machine {rate(gpu.network, '--network')}, each one way and fully "
            "used, by rings; the waiting of messages is left out. Moved while computing: the longer of the two counts.",
        )
    return notes
