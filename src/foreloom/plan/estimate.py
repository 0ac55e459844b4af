"""How long a step and a run take, and what they cost, from what is counted and what is stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreloom.plan.cluster import Cluster
from foreloom.plan.communication import MASTER_BYTES, Collective

RECOMPUTED = 4 / 3
"""Compute of a step whose blocks are computed again in the backward pass: one forward more of the three that a forward
and a backward cost."""
_STATES = {"adamw": 2, "muon": 2, "sgd": 1}
"""What an optimizer remembers of a parameter; of Muon the most."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step and of what it is made of."""

    compute: float
    """Forward and backward."""
    communication: float
    """Of all that is moved; it goes on beside the computing."""
    update: float

    @property
    def total(self) -> float:
        """Of computing and communication the longer, then the update."""
        return max(self.compute, self.communication) + self.update


def time_step(
    cluster: Cluster,
    *,
    flops: float,
    collectives: Sequence[Collective],
    optimizer: str,
    num_updated: float,
    recomputes: bool,
) -> StepTime:
    """Of the rank with most rows, whose forward and backward cost `flops`; it updates `num_updated` parameters.

    The update is bound by memory: it reads weight, gradient and states, and writes all but the gradient.
    """
    touched = 3 + 2 * _STATES[optimizer]
    return StepTime(
        compute=flops * (RECOMPUTED if recomputes else 1) / (cluster.peak_flops * cluster.mfu),
        communication=sum(one.seconds(cluster.accelerator.link, cluster.accelerator.network) for one in collectives),
        update=touched * MASTER_BYTES * num_updated / cluster.accelerator.bandwidth,
    )


@dataclass(frozen=True)
class RunCost:
    """What a whole run takes of all devices."""

    seconds: float
    kwh: float | None
    """Of the devices alone: neither hosts nor cooling. None, as the price, where nothing is stated of it."""
    price: float | None


def cost_run(cluster: Cluster, step_seconds: float, num_steps: int) -> RunCost:
    """Of `num_steps` steps, every device at its full power; evaluation and checkpoints left out."""
    seconds = step_seconds * num_steps
    watts, device_hours = cluster.accelerator.watts, cluster.num_gpus * seconds / 3600
    return RunCost(
        seconds,
        kwh=None if watts is None else device_hours * watts / 1000,
        price=None if cluster.price is None else device_hours * cluster.price,
    )
