"""How ranks share a model: the recipe's `parallel` section and the mesh (dp_replicate, dp_shard; ep) it leads to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from foreloom.config.section import section
from foreloom.distributed.process import TIMEOUT_MINUTES

# Below this many parameters the model, its gradients and AdamW's moments fit any training GPU whole.
SHARD_FROM_PARAMETERS = 1_000_000_000


@section
class ParallelConfig:
    """How the ranks share the model. A run of one process shares nothing; only where torchrun or another launcher
    started it and the strategy is given, is its model wrapped all the same."""

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """ddp keeps the model whole on every rank; fsdp shards it by block (FSDP2); auto shards from 1B parameters on."""
    dp_replicate: Annotated[int, Field(ge=0)] = 0
    """Copies of the model under fsdp, each shared by dp_shard ranks; 0: as many as dp_shard leaves."""
    dp_shard: Annotated[int, Field(ge=0)] = 0
    """Ranks that share one copy under fsdp; 0: all that dp_replicate leaves."""
    ep: Annotated[int, Field(ge=1)] = 1
    """Neighbouring ranks that share the experts of a mixture: each holds its part, and tokens are sent to the rank that
    has their expert, and back. It divides the ranks and the experts. The rest of the model is as `strategy` says."""
    timeout_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = TIMEOUT_MINUTES
    """A rank that waits longer for another gives up, and the run ends. It says whom it waits for after 30 seconds."""

    def __post_init__(self) -> None:
        if self.strategy == "ddp" and (self.dp_replicate or self.dp_shard):
            raise ValueError("dp_replicate and dp_shard have no effect with strategy: ddp; remove them, or use fsdp")


@dataclass(frozen=True)
class MeshShape:
    """Sizes of the mesh axes. `dp_shard` 1 means plain data parallelism."""

    strategy: Literal["ddp", "fsdp"]
    dp_replicate: int
    dp_shard: int
    ep: int = 1

    @property
    def meets_in_blocks(self) -> bool:
        """Do ranks wait for each other within forward and backward?"""
        return self.strategy == "fsdp" or self.ep > 1


def mesh_shape(config: ParallelConfig, *, world_size: int, num_parameters: int) -> MeshShape:
    """Settle the strategy and the axes. Raises ValueError where the axes do not multiply to `world_size`."""
    strategy = config.strategy
    if strategy == "auto":
        axes_given = config.dp_replicate or config.dp_shard
        strategy = "fsdp" if axes_given or num_parameters >= SHARD_FROM_PARAMETERS else "ddp"
    if world_size % config.ep:
        raise ValueError(f"parallel.ep is {config.ep}, which does not divide the number of ranks, {world_size}")
    if strategy == "ddp":
        return MeshShape("ddp", world_size, 1, config.ep)
    replicate, shard = config.dp_replicate, config.dp_shard
    if not replicate:
        replicate = max(1, world_size // shard) if shard else 1
    if not shard:
        shard = max(1, world_size // replicate)
    if replicate * shard != world_size:
        raise ValueError(
            f"parallel: dp_replicate x dp_shard is {replicate} x {shard}, but there are {world_size} ranks; "
            "leave one of the two at 0 or make the product fit"
        )
    return MeshShape("fsdp", replicate, shard, config.ep)
