"""What measures the model while it trains: the validation loss and the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import nn

from foreloom.checkpoint.manifest import VALIDATION_LOSS
from foreloom.distributed.parallelize import ParallelModel
from foreloom.distributed.process import Process
from foreloom.models.family import ModelFamily
from foreloom.monitoring.monitor import Monitor
from foreloom.monitoring.record import BenchmarkRecord, Tier, score_name
from foreloom.training.validation import Validation


class Benchmark(Protocol):
    """Forecasts of the model scored in one or more tiers. All ranks call every method together."""

    def due(self, step: int, *, is_last: bool) -> Sequence[Tier]:
        """The tiers to be scored on the model after `step`."""
        ...

    def run(self, step: int, tier: Tier, model: nn.Module, run_seconds: Callable[[], float]) -> BenchmarkRecord | None:
        """Score `model`, which is in eval mode; None where it cannot be. `run_seconds()`: since the run began."""
        ...

    def resume(self, step: int) -> None:
        """Take up what was known after `step`; -1: nothing, the run begins."""
        ...


class Scoring:
    """Scores the model after the steps at which that is due. All ranks call it together and get the same."""

    def __init__(
        self,
        parallel: ParallelModel,
        model: nn.Module,
        family: ModelFamily,
        process: Process,
        monitor: Monitor,
        validation: Validation | None,
        benchmark: Benchmark | None,
    ) -> None:
        self.validation = validation
        self._parallel, self._model, self._family, self._process = parallel, model, family, process
        self._monitor = monitor
        self._benchmark = benchmark

    def validate(self, step: int, *, is_last: bool) -> dict[str, float]:
        """The validation loss after `step` by name, where it is due."""
        if self.validation is None or not self.validation.is_due(step, is_last=is_last):
            return {}
        record = self.validation.run(step, self._parallel, self._model, self._family, self._process)
        self._monitor.log_validation(record)
        if self.validation.is_exhausted:
            self._monitor.event("early_end", self.validation.why_exhausted, step=step)
        return {VALIDATION_LOSS: record.loss}

    def benchmark(self, step: int, run_seconds: Callable[[], float], *, is_last: bool) -> dict[str, float]:
        """The benchmark's scores after `step` by name, of the tiers that are due."""
        scores: dict[str, float] = {}
        if self._benchmark is None:
            return scores
        for tier in self._benchmark.due(step, is_last=is_last):
            self._model.eval()
            with self._parallel.answering(self._process.device):
                record = self._benchmark.run(step, tier, self._model, run_seconds)
            self._model.train()
            if record:
                self._monitor.log_benchmark(record)
                scores |= {score_name(tier, name): score for name, score in record.scores.items()}
        return scores

    def resume(self, step: int) -> None:
        """Go on after `step` of an earlier session (-1: begin). The validation's state comes from the checkpoint."""
        if self._benchmark:
            self._benchmark.resume(step)

    @property
    def is_exhausted(self) -> bool:
        """Has the validation loss stopped falling, so that the run is to end?"""
        return self.validation is not None and self.validation.is_exhausted

    @property
    def step_to_restore(self) -> int | None:
        """The step whose weights the run is to end with, as far as is known; None: those of its last one."""
        return self.validation.step_to_restore if self.validation else None
