"""One step of a recipe as rank 0 of many: its shares of the model, and what it really sends, beside the formula's."""

from __future__ import annotations

import dataclasses
import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from foreloom.config.loader import Recipe
from foreloom.data.loader import StepBatch
from foreloom.distributed.mesh import MeshShape, ParallelConfig, mesh_shape
from foreloom.distributed.parallelize import ParallelModel, local_part, parallelize
from foreloom.distributed.simulated import CollectiveLog, leave_share, simulated_group
from foreloom.models import registry
from foreloom.models.common.cpu import standing_for_accelerator
from foreloom.plan.communication import (
    KINDS,
    MASTER_BYTES,
    Collective,
    SharedExperts,
    collectives_of_step,
    count_parameters,
    count_shards,
)
from foreloom.plan.ways import tensors_of
from foreloom.run.memory import AnswersWithoutValues, count_step, without_values
from foreloom.run.recipe import choose_trained, data_of, shapes_of
from foreloom.training.optimizer import build_optimizer
from foreloom.training.state import LaneCarry
from foreloom.training.step import OptimizerStep
from foreloom.training.stopwatch import Stopwatch


@dataclass(frozen=True)
class SharedTensor:
    """A parameter, and what ranks have of it along its first dimension."""

    name: str
    shape: tuple[int, ...]
    first_rows: int
    """Of rank 0."""
    last_rows: int
    """Of the last rank that shares the copy."""


@dataclass(frozen=True)
class Simulation:
    """What rank 0 of a step held and sent."""

    num_ranks: int
    dp_replicate: int
    dp_shard: int
    num_rows: int
    """Of a micro-batch."""
    num_micro_batches: int
    num_parameters: int
    held_bytes: dict[str, int]
    """Of rank 0 after the step: its shares of weights, gradients and optimizer."""
    tensors: tuple[SharedTensor, ...]
    num_collectives: dict[str, int]
    sent_bytes: dict[str, float]
    """By this rank, by collective."""
    formula_bytes: dict[str, float]
    """What `plan.communication` says of the same."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def simulate(recipe: Recipe, num_ranks: int) -> Simulation:
    """A step as the recipe would make it on `num_ranks` accelerators under FSDP2, over all or by its own mesh.

    Nothing of it has values: forward, backward and update are those of the trainer, on tensors of shapes alone.
    ValueError for a model without blocks, and a mesh that does not fit the ranks.
    """
    training, section = recipe.sections["training"], recipe.sections["parallel"]
    parallel = section if section.dp_replicate or section.dp_shard else ParallelConfig(strategy="fsdp", ep=section.ep)
    family, model = registry.get(recipe.sections["model"].family), shapes_of(recipe)
    choose_trained(model, recipe)
    tensors, kinds = tensors_of(recipe, model), family.kinds(model)
    counts = count_parameters(tensors)
    shape = mesh_shape(parallel, world_size=num_ranks, num_parameters=counts.total)
    share = -(-training.batch_size // num_ranks)
    rows = share if training.micro_batch_size == "auto" else min(training.micro_batch_size or share, share)
    compute = None if training.precision == "fp32" else torch.bfloat16
    largest = data_of(recipe).full_rows
    micro_batches, log, exchanged = [largest(rows)] * -(-share // rows), CollectiveLog(), 0
    if shape.ep > 1:
        count = count_step(recipe, largest, rows, device="cuda", keeps_gradients=True, is_sharded=True)
        exchanged = count(shape.dp_shard, False).exchanged_bytes
    with ExitStack() as stack:
        process = stack.enter_context(simulated_group(num_ranks))
        stack.enter_context(standing_for_accelerator())
        arguments = family.batch(model, micro_batches[0], process.device)
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode:
            without_values(model.train())
        wrapped = parallelize(
            model,
            family.sharding,
            parallel,
            process,
            activation_checkpointing=training.activation_checkpointing,
            autocast_dtype=compute,
        )
        if shape.ep > 1:
            leave_share(model, family.sharding, shape.ep, log.issued)
        optimizer = build_optimizer(
            recipe.sections["optimizer"], wrapped.named_parameters(), kinds, max_grad_norm=training.max_grad_norm
        )
        for one in (mode, AnswersWithoutValues(), log):
            stack.enter_context(one)
        carry = LaneCarry(family.carry(model, training.batch_size, process.device), process) if family.carry else None
        arguments = tree_map_only(Tensor, mode.from_tensor, arguments)
        family = dataclasses.replace(family, batch=lambda *_: arguments)
        step = OptimizerStep(wrapped, family, optimizer, process, Stopwatch(process.device), carry)
        step.run(StepBatch(0, training.batch_size, training.batch_size, micro_batches), learning_rate=0.0)
        held = _held(wrapped, optimizer)
        shared = _tensors(wrapped, shape)
    filled, of_experts = count_shards(tensors, shape)
    formula = collectives_of_step(
        filled,
        shape,
        experts=SharedExperts(of_experts, exchanged),
        num_micro_batches=len(micro_batches),
        compute_bytes=2 if compute else MASTER_BYTES,
        per_machine=num_ranks,
    )
    issued = [Collective(one.kind, one.num_bytes, one.num_ranks, 0) for one in log.issued if one.num_ranks > 1]
    return Simulation(
        num_ranks,
        shape.dp_replicate,
        shape.dp_shard,
        rows,
        len(micro_batches),
        counts.total,
        held,
        shared,
        {kind: sum(one.kind == kind for one in issued) for kind in KINDS},
        {kind: sum(one.sent_bytes for one in issued if one.kind == kind) for kind in KINDS},
        {kind: sum(one.sent_bytes for one in formula if one.kind == kind) for kind in KINDS},
    )


def _held(wrapped: ParallelModel, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    size = lambda tensors: sum(local_part(one).nbytes for one in tensors if isinstance(one, Tensor))
    parameters = [parameter for _, parameter in wrapped.named_parameters()]
    return {
        "weights": size([*parameters, *wrapped.model.buffers()]),
        "gradients": size(p.grad for p in parameters),
        "optimizer": size(tree_leaves(list(optimizer.state.values()))),
    }


def _tensors(wrapped: ParallelModel, shape: MeshShape) -> tuple[SharedTensor, ...]:
    """By size; of FSDP2's even cut along the first dimension the last ranks may get less, or nothing."""
    found, experts = [], {id(p) for p in wrapped.experts.parameters} if wrapped.experts else ()
    for name, parameter in wrapped.named_parameters():
        num_shards = shape.ep if id(parameter) in experts else shape.dp_shard
        rows = parameter.shape[0]
        share = -(-rows // num_shards)
        assert local_part(parameter).shape[0] == share
        last = min(max(rows - (num_shards - 1) * share, 0), share)
        found.append(SharedTensor(name, tuple(parameter.shape), share, last))
    return tuple(sorted(found, key=lambda one: -math.prod(one.shape)))
