"""What ranks tell each other: sums of tensors, facts, and decisions taken on rank 0.

Every function is collective: all ranks call it, in the same order. With one rank each is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from foreloom.distributed.process import RAISED_ON_EVERY_RANK, Process
from foreloom.distributed.waiting import waiting

T = TypeVar("T")


def sum_over_ranks(tensor: Tensor, process: Process) -> Tensor:
    """Add `tensor` over all ranks, in place, on its own device; every rank gets the same bits."""
    if process.world_size > 1:
        with waiting("a sum over all ranks"):
            dist.all_reduce(tensor, group=process.group)
    return tensor


def gather_objects(value: T, process: Process) -> list[T]:
    """Every rank's `value`, in order of rank, on every rank."""
    if process.world_size == 1:
        return [value]
    values: list[T | None] = [None] * process.world_size
    with waiting("what every rank has to say"):
        dist.all_gather_object(values, value, group=process.group)
    return values  # type: ignore[return-value]


def from_rank_zero(decide: Callable[[], T], process: Process) -> T:
    """Call `decide` on rank 0 only and give its answer, or its `ValueError` or `OSError`, to every rank.

    So that no rank waits for another that has given up.
    """
    if process.world_size == 1:
        return decide()
    answer: list[T | ValueError | OSError | None] = [None]
    if process.is_main:
        try:
            answer = [decide()]
        except (ValueError, OSError) as error:
            answer = [error]
    with waiting("a decision of rank 0"):
        dist.broadcast_object_list(answer, src=0, group=process.group, device=torch.device("cpu"))
    if isinstance(answer[0], ValueError | OSError):
        setattr(answer[0], RAISED_ON_EVERY_RANK, True)
        raise answer[0]
    return answer[0]  # type: ignore[return-value]


def max_over_ranks(value: int, process: Process) -> int:
    """The largest `value` of all ranks, by way of the host: it does not wait for the device."""
    if process.world_size == 1:
        return value
    shared = torch.tensor(value)
    with waiting("a word of every rank"):
        dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=process.group)
    return int(shared)
