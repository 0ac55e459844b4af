"""How many forwards a batch of windows takes, known from the plan, so that ranks can stay in step.

The modules that make up a sharded model exchange their parameters in every forward: ranks that made unequal numbers
would wait for each other for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.windows import PlannedWindow
from foreloom.models.family import Forecaster


@runtime_checkable
class StepBoundedForecaster(Forecaster, Protocol):
    """A univariate forecaster that cuts up what holds too many context steps for one forward."""

    @property
    def max_steps(self) -> int:
        """Most rows of one forward times the longest of their contexts."""
        ...


def rows_per_forward(batch: Sequence[PlannedWindow], forecaster: Forecaster) -> int:
    """The `batch_size` to ask for: with it the rows alone decide where a forecaster cuts, whatever values they hold."""
    num_rows = sum(planned.num_rows for planned in batch)
    if not isinstance(forecaster, StepBoundedForecaster):
        return num_rows
    longest = max(min(planned.cut, forecaster.context_length) for planned in batch)
    return min(num_rows, max(1, forecaster.max_steps // longest))


def num_forwards(batch: Sequence[PlannedWindow], forecaster: Forecaster) -> int:
    """Forwards (each with the rounds that its horizon takes) of a call with that batch size: 1 for most batches."""
    num_targets = sum(len(planned.variates) for planned in batch)
    return -(-num_targets // rows_per_forward(batch, forecaster))


def single_row(whole: ForecastInput) -> ForecastInput:
    """The first target alone: the cheapest forward there is."""
    return replace(whole, context_RC=whole.context_RC[:1], future_RH=whole.future_RH[:1], num_targets=1, num_past=0,
                   num_future=0)  # fmt: skip
