"""Validation: the training loss on windows that training never sees, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from foreloom.config.section import section
from foreloom.data.mixture import SourceConfig
from foreloom.data.windows import Windows
from foreloom.distributed.parallelize import ParallelModel
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import sum_over_ranks
from foreloom.models.family import ModelFamily
from foreloom.monitoring.record import ValidationRecord
from foreloom.training.patience import BestLoss
from foreloom.training.tally import OutputSums


@section
class ValidationConfig:
    """How often the loss is measured on data kept out of training, and when that ends the run."""

    steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps between validations; one before the first step and one after the last come besides. 0: never."""
    max_windows: Annotated[int, Field(ge=1)] = 2048
    """Most windows of one validation; where there are more, so many evenly spread ones, always the same."""
    sources: tuple[SourceConfig, ...] = ()
    """Data sets of their own to validate on; empty: the holdout of data.sources."""
    stride: Annotated[int, Field(ge=1)] | None = None
    """Steps between two windows of a series; unset: data.prediction_length."""
    patience: Annotated[int, Field(ge=0)] = 0
    """The run ends after so many validations without an improvement; 0: it never ends early."""
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How far the loss must fall to count as an improvement."""
    restore_best: bool | None = None
    """The final hf/ holds the weights of the lowest validation loss, not those of the last step; each best model so far
    is saved for that. Unset: where patience is given."""

    def __post_init__(self) -> None:
        absent = {"patience": "0", "min_delta": "0", "restore_best": "null", "sources": "[]", "stride": "null"}
        idle = [name for name in absent if getattr(self, name)]
        if not self.steps and idle:
            have = "has" if len(idle) == 1 else "have"
            without = " ".join(f"validation.{name}={absent[name]}" for name in idle)
            raise ValueError(
                f"{' and '.join(idle)} {have} no effect while validation.steps is 0; set it, or go without: {without}"
            )
        if self.min_delta and not self.patience:
            raise ValueError("min_delta has no effect without patience; set it or remove min_delta")

    @property
    def restores(self) -> bool:
        """`restore_best` with its default filled in."""
        return self.patience > 0 if self.restore_best is None else self.restore_best

    def implied(self) -> dict[str, Any]:
        return {"restore_best": self.restores}


class Validation:
    """Measures a model on `windows` (this rank's share: as many micro-batches on every rank) and remembers the best."""

    def __init__(self, config: ValidationConfig, windows: Iterable[Windows]) -> None:
        self.config = config
        self.best = BestLoss()
        self._windows = windows

    def is_due(self, step: int, *, is_last: bool) -> bool:
        """Is the model after `step` to be measured? Before the first step too: a fine-tuned model may start best."""
        return (step % self.config.steps == 0 or is_last) and step != self.best.last_step

    @property
    def is_exhausted(self) -> bool:
        """Has the loss stopped falling for as long as the recipe allows?"""
        return 0 < self.config.patience <= self.best.num_in_vain

    @property
    def why_exhausted(self) -> str:
        """A sentence for a run that ends early."""
        in_a_row = f"{self.best.num_in_vain} validations in a row" if self.best.num_in_vain > 1 else "a validation"
        enough = f" by more than {self.config.min_delta:g}" if self.config.min_delta else ""
        lowest = "" if self.best.step is None else f"; the lowest was {self.best.loss:.4f} at step {self.best.step:,}"
        return f"The run ends early: {in_a_row} did not lower the loss{enough}{lowest}."

    @property
    def step_to_restore(self) -> int | None:
        """The step whose weights the run is to end with; None where they are those of its last step."""
        return self.best.step if self.config.restores else None

    def run(
        self, step: int, parallel: ParallelModel, model: nn.Module, family: ModelFamily, process: Process
    ) -> ValidationRecord:
        """Measure `model`, which `parallel` wraps, after `step`, in eval mode. Collective; equal on every rank.

        Raises ValueError where none of the windows has an observed value to be forecast.
        """
        sums = OutputSums(process.device)
        parallel.module.eval()
        with torch.no_grad():
            for windows in self._windows:
                with parallel.autocast(process.device):
                    sums.add(parallel.module(**family.batch(model, windows, process.device)))
        parallel.module.train()
        total = sum_over_ranks(sums.vector, process)
        loss_sum, count = total[:2].tolist()
        if not count:
            raise ValueError("validation: none of the windows held out has an observed value; hold out more steps")
        tally = {name: value.cpu().numpy() for name, value in sums.tally(total[2:]).items()}
        self.best.note(step, loss_sum / count, self.config.min_delta)
        return ValidationRecord(
            step=step,
            loss=loss_sum / count,
            best_loss=self.best.loss,
            best_step=self.best.step,
            num_in_vain=self.best.num_in_vain,
            patience=self.config.patience,
            # What is called train_loss in training is the loss here.
            figures={
                name.removeprefix("train_"): value
                for name, value in (family.figures(model, tally) if tally else {}).items()
            },
        )

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.best)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = BestLoss(**state)
