"""What measures the model while it trains: the validation loss and the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from foreloom.checkpoint.manifest import VALIDATION_LOSS
from foreloom.distributed.parallelize import ParallelModel
from foreloom.distributed.process import Process
from foreloom.models.family import ModelFamily
from foreloom.monitoring.monitor import Monitor
from foreloom.training.validation import Validation

Benchmark = Callable[[int, nn.Module], Mapping[str, float]]
"""benchmark(step, model in eval mode) -> scores by metric. Called on all ranks."""


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
        benchmark_steps: int,
    ) -> None:
        assert (benchmark is None) == (benchmark_steps == 0)
        self.validation = validation
        self._parallel, self._model, self._family, self._process = parallel, model, family, process
        self._monitor = monitor
        self._benchmark, self._benchmark_steps = benchmark, benchmark_steps

    def validate(self, step: int, *, is_last: bool) -> dict[str, float]:
        """The validation loss after `step` by name, where it is due."""
        if self.validation is None or not self.validation.is_due(step, is_last=is_last):
            return {}
        record = self.validation.run(step, self._parallel, self._model, self._family, self._process)
        self._monitor.log_validation(record)
        if self.validation.is_exhausted:
            self._monitor.event("early_end", self.validation.why_exhausted, step=step)
        return {VALIDATION_LOSS: record.loss}

    def benchmark(self, step: int, *, is_last: bool) -> Mapping[str, float]:
        """The benchmark's scores after `step` by metric, where it is due."""
        if self._benchmark is None or (step % self._benchmark_steps and not is_last):
            return {}
        self._model.eval()
        scores = self._benchmark(step, self._model)
        self._model.train()
        return scores

    @property
    def is_exhausted(self) -> bool:
        """Has the validation loss stopped falling, so that the run is to end?"""
        return self.validation is not None and self.validation.is_exhausted

    @property
    def step_to_restore(self) -> int | None:
        """The step whose weights the run is to end with, as far as is known; None: those of its last one."""
        return self.validation.step_to_restore if self.validation else None
