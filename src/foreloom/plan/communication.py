"""What ranks send one another in a step: bytes by formula, and the seconds that takes at stated bandwidths.

A ring makes a rank send (n - 1) / n of a tensor's bytes to all-gather or reduce-scatter it among n ranks, and twice
that to all-reduce it, which is both (Patarasuk and Yuan, 2009, "Bandwidth optimal all-reduce algorithms for clusters of
workstations"). Which tensors those are: DDP's gradients; under FSDP2, which is ZeRO's third stage, the parameters
before each forward and backward and the gradients after (Rajbhandari et al., 2020, "ZeRO", section 7); under HSDP the
shares of the gradients besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, get_args

from foreloom.distributed.mesh import MeshShape
from foreloom.distributed.simulated import CollectiveKind

KINDS: tuple[CollectiveKind, ...] = get_args(CollectiveKind)
MASTER_BYTES = 4
"""Of a parameter or gradient that is kept or added: float32."""


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has, by what is done with them."""

    total: int
    trained: int
    in_blocks: int
    """Of the blocks, which FSDP2 gathers in the compute precision, and lets go after forward and after backward."""
    orthogonalised: int = 0
    """Muon gathers these to move them."""


class TensorSize(NamedTuple):
    """A parameter, which FSDP2 cuts along its first dimension."""

    rows: int
    row_size: int
    is_trained: bool
    is_in_block: bool
    is_orthogonalised: bool
    is_shared: bool = False
    """Is it of experts that ranks share, which FSDP2 leaves alone?"""


@dataclass(frozen=True)
class SharedExperts:
    """The experts that ranks share."""

    counts: ParameterCounts = ParameterCounts(0, 0, 0)
    """Of all of them."""
    exchanged_bytes: float = 0
    """What a rank sends to them and back in a micro-batch, as `run.memory` counts it."""


def count_shards(tensors: Iterable[TensorSize], shape: MeshShape) -> tuple[ParameterCounts, ParameterCounts]:
    """What ranks share as the strategy says, filled up, and the experts they share."""
    tensors = list(tensors)
    rest, experts = ([one for one in tensors if one.is_shared == shared] for shared in (False, True))
    return count_parameters(rest, shape.dp_shard), count_parameters(experts)


def count_parameters(tensors: Iterable[TensorSize], num_shards: int = 1) -> ParameterCounts:
    """In all shares together: each tensor is filled up to as many rows for each of `num_shards` ranks, so stacked
    experts that are fewer than the ranks become several times as large."""
    filled = [(-(-one.rows // num_shards) * num_shards * one.row_size, one) for one in tensors]
    return ParameterCounts(
        total=sum(size for size, _ in filled),
        trained=sum(size for size, one in filled if one.is_trained),
        in_blocks=sum(size for size, one in filled if one.is_in_block),
        orthogonalised=sum(size for size, one in filled if one.is_orthogonalised),
    )


@dataclass(frozen=True)
class Collective:
    """All of a kind that a step has among the ranks of one group."""

    kind: CollectiveKind
    num_bytes: float
    """Of the whole tensors."""
    num_ranks: int
    num_crossing: int
    """Such groups whose rings leave a machine side by side; 0 where each stays within one."""

    @property
    def sent_bytes(self) -> float:
        """By each rank."""
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * (self.num_ranks - 1) / self.num_ranks * self.num_bytes

    def seconds(self, link: float, network: float) -> float:
        """At so many bytes a second from a device to the others of its machine, and out of a machine."""
        return max(self.sent_bytes / link, self.sent_bytes * self.num_crossing / network)


def collectives_of_step(
    counts: ParameterCounts,
    shape: MeshShape,
    *,
    num_micro_batches: int,
    compute_bytes: int,
    per_machine: int,
    experts: SharedExperts | None = None,
) -> list[Collective]:
    """Those that move parameters and gradients; what else ranks tell one another is a few numbers.

    `counts`: filled up for the ranks that share a copy, and without `experts` that ranks share. `compute_bytes`: of a
    parameter in the compute precision. Ranks that follow one another share a copy of the model, and `per_machine` of
    them a machine. Gradients are exchanged in the last micro-batch of a step.
    """
    num_ranks = shape.dp_replicate * shape.dp_shard
    found = [] if experts is None else _of_shared(experts, shape.ep, num_ranks, num_micro_batches, per_machine)
    crosses = num_ranks > per_machine
    across = min(per_machine, shape.dp_shard) if crosses else 0
    gradients = MASTER_BYTES * counts.trained
    if shape.strategy == "ddp":
        found += [Collective("all-reduce", gradients, shape.dp_replicate, across)]
        return [one for one in found if one.num_ranks > 1]
    within = int(shape.dp_shard > per_machine)
    blocks = 2 * compute_bytes * counts.in_blocks
    outside = MASTER_BYTES * (counts.total - counts.in_blocks)
    gathered = num_micro_batches * (blocks + outside) + MASTER_BYTES * counts.orthogonalised
    found += [
        Collective("all-gather", gathered, shape.dp_shard, within),
        Collective("reduce-scatter", gradients, shape.dp_shard, within),
        Collective("all-reduce", gradients / shape.dp_shard, shape.dp_replicate, across),
    ]
    return [one for one in found if one.num_ranks > 1]


def _of_shared(
    experts: SharedExperts, ep: int, num_ranks: int, num_micro_batches: int, per_machine: int
) -> list[Collective]:
    """What neighbours send to one another's experts and back; the gradients that ranks with the same experts add; and
    what Muon gathers. Where experts lie on several machines, all that is sent is taken to leave one."""
    copies = num_ranks // ep
    across = min(per_machine, ep) if num_ranks > per_machine and copies > 1 else 0
    crossing = per_machine if ep > per_machine else 0
    return [
        Collective("all-to-all", num_micro_batches * experts.exchanged_bytes, ep, crossing),
        Collective("all-reduce", MASTER_BYTES * experts.counts.trained / ep, copies, across),
        Collective("all-gather", MASTER_BYTES * experts.counts.orthogonalised, ep, int(ep > per_machine)),
    ]
