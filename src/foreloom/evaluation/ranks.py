"""The ranks that share an evaluation: who takes which batch, how sums travel, and as many forwards on every rank.

The modules that make up a sharded model exchange their parameters in every forward: ranks that made unequal numbers
would wait for each other for ever. So a rank makes the forwards of others besides, known from the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import sum_over_ranks
from foreloom.evaluation.plan import Plan
from foreloom.models.family import Forecaster


@dataclass(frozen=True)
class Ranks:
    """This rank among those that score the same tasks, each taking every world_size-th batch."""

    rank: int = 0
    world_size: int = 1
    sum: Callable[[np.ndarray], np.ndarray] = lambda vector: vector
    """Sums a float64 vector over ranks. Collective."""

    @classmethod
    def of(cls, process: Process) -> Self:
        """The ranks that `process` is one of."""
        return cls(
            process.rank,
            process.world_size,
            lambda vector: sum_over_ranks(torch.from_numpy(vector), process).numpy(),
        )

    def schedule(self, num_batches: int) -> Iterator[tuple[list[int], bool]]:
        """Round by round, the batch that each rank takes, and whether that of this one counts.

        A rank with no batch left repeats the first one, to be dropped: forwards of a sharded module must stay in step.
        """
        for first in range(0, num_batches, self.world_size):
            taken = [batch if batch < num_batches else 0 for batch in range(first, first + self.world_size)]
            yield taken, first + self.rank < num_batches


ALONE = Ranks()


@runtime_checkable
class StepBoundedForecaster(Forecaster, Protocol):
    """A univariate forecaster that cuts up what holds too many context steps for one forward."""

    @property
    def max_steps(self) -> int:
        """Most rows of one forward times the longest of their contexts."""
        ...


def rows_per_forward(plan: Plan, windows: range, forecaster: Forecaster) -> int:
    """The `batch_size` to ask for: with it the rows alone decide where a forecaster cuts, whatever values they hold."""
    batch = slice(windows.start, windows.stop)
    num_rows = int(plan.num_rows_N[batch].sum())
    if not isinstance(forecaster, StepBoundedForecaster):
        return num_rows
    longest = min(int(plan.cut_N[batch].max()), plan.context_length)
    return min(num_rows, max(1, forecaster.max_steps // longest))


def num_forward_passes(plan: Plan, windows: range, forecaster: Forecaster) -> int:
    """Forwards (each with the rounds that its horizon takes) of a call with that batch size: 1 for most batches."""
    num_targets = int(plan.num_targets_N[windows.start : windows.stop].sum())
    return -(-num_targets // rows_per_forward(plan, windows, forecaster))


def single_row(whole: ForecastInput) -> ForecastInput:
    """The first target alone: the cheapest forward there is."""
    return replace(whole, context_RC=whole.context_RC[:1], future_RH=whole.future_RH[:1], num_targets=1, num_past=0,
                   num_future=0)  # fmt: skip
