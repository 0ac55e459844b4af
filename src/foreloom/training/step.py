"""One optimizer step: the gradient of a global batch, from all its micro-batches and ranks, and one update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foreloom.data.windows import Windows
from foreloom.distributed.parallelize import ParallelModel
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import sum_over_ranks
from foreloom.models.family import ModelFamily, Tally
from foreloom.training.dry_run import out_of_memory_sentence
from foreloom.training.gradients import fill_missing, global_totals, update
from foreloom.training.optimizer import OptimizerConfig, build_optimizer
from foreloom.training.stopwatch import Stopwatch
from foreloom.training.tally import OutputSums

Prepare = Callable[[int, Windows], Mapping[str, Any]]
"""prepare(number of a micro-batch, its windows) -> forward's arguments."""


class StepFigures(NamedTuple):
    """What a step leaves on the device; nothing of it has been looked at."""

    totals: Tensor
    """(loss, gradient norm, count) of the global batch."""
    tally: Tally
    """Of the global batch."""
    applied: Tensor
    """1, or 0 where the step was skipped."""


class OptimizerStep:
    """Turns this rank's micro-batches into an update of the model, the same on every rank."""

    def __init__(
        self,
        config: OptimizerConfig,
        max_grad_norm: float,
        parallel: ParallelModel,
        model: nn.Module,
        family: ModelFamily,
        process: Process,
        stopwatch: Stopwatch,
    ) -> None:
        self.optimizer = build_optimizer(config, model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._max_grad_norm = max_grad_norm
        self._stopwatch = stopwatch
        self._parallel, self._model, self._family, self._process = parallel, model, family, process
        self._needs_survey = family.needs_survey(model)

    def run(self, micro_batches: Sequence[Windows], learning_rate: float) -> StepFigures:
        """Gradients of the loss sum over micro-batches and ranks, then one update. Collective."""
        totals, tally = self._gradients(micro_batches)
        with self._stopwatch.part("optimizer"):
            applied = update(self.optimizer, totals, learning_rate, self._max_grad_norm)
            self._family.after_update(self._model, tally, applied)
        return StepFigures(totals, tally, applied)

    def rehearse(self, windows: Windows) -> None:
        """Forward, backward and a skipped update on the largest micro-batch there can be; no state changes.

        Raises ValueError with advice where it does not fit.
        """
        try:
            totals, _ = self._gradients([windows])
            update(self.optimizer, torch.full_like(totals, torch.nan), 0.0, self._max_grad_norm)
        except torch.OutOfMemoryError as error:
            raise ValueError(out_of_memory_sentence(error, windows, self._process)) from error
        self.optimizer.zero_grad()

    def _gradients(self, micro_batches: Sequence[Windows]) -> tuple[Tensor, Tally]:
        """Fill every parameter's gradient; returns (loss, gradient norm, count) and the tally of the global batch."""
        device = self._process.device
        self.optimizer.zero_grad()
        sums = OutputSums(device)
        with self._stopwatch.part("forward_backward"):
            prepare, shared = self._survey(micro_batches)
            for i, windows in enumerate(micro_batches, start=1):
                arguments = prepare(i - 1, windows)
                with self._parallel.micro_batch(is_last=i == len(micro_batches)):
                    with self._parallel.autocast(device):
                        output = self._parallel.module(**arguments, **shared)
                    output.objective.sum.backward()
                sums.add(output)
        with self._stopwatch.part("optimizer"):
            fill_missing(self.parameters)
            num_copies = self._parallel.mesh.dp_replicate
            totals, entries = global_totals(sums.vector, self.parameters, num_copies, self._process, self._stopwatch)
        return totals, sums.tally(entries)

    def _survey(self, micro_batches: Sequence[Windows]) -> tuple[Prepare, Mapping[str, Tally]]:
        """What makes forward's arguments of a micro-batch, and what its forward is told of the whole batch. Collective.

        Most families need to know nothing of it; see `ModelFamily.needs_survey`.
        """
        device = self._process.device
        prepare = lambda i, windows: self._family.batch(self._model, windows, device)
        if not self._needs_survey or len(micro_batches) * self._process.world_size == 1:
            return prepare, {}
        seeds = torch.randint(2**62, (len(micro_batches),)).tolist()
        arguments = [prepare(i, windows) for i, windows in enumerate(micro_batches)]

        def prepared(i: int, windows: Windows) -> Mapping[str, Any]:
            torch.manual_seed(seeds[i])  # so that both forwards drop the same activations
            return arguments[i]

        sums = OutputSums(device)
        with torch.no_grad():
            for i, windows in enumerate(micro_batches):
                with self._parallel.autocast(device):
                    sums.add(self._parallel.module(**prepared(i, windows), survey_only=True))
        with self._stopwatch.part("communication"):
            totals = sum_over_ranks(sums.vector, self._process)
        return prepared, {"global_tally": sums.tally(totals[2:])}
