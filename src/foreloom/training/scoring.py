"""What measures the model while it trains: the loss on held-out data, when it stops falling, and the benchmark."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foreloom.checkpoint.manifest import VALIDATION_LOSS
from foreloom.data.batch import ExplainsItself, MicroBatch
from foreloom.data.config import ValidationConfig
from foreloom.distributed.parallelize import ParallelModel, local_part
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import gather_objects, max_over_ranks, sum_over_ranks
from foreloom.models.family import ModelFamily
from foreloom.monitoring.monitor import Monitor
from foreloom.monitoring.progress import Progress
from foreloom.monitoring.record import BenchmarkRecord, Tier, ValidationRecord, score_name
from foreloom.training.step import OutputSums

StopSignal = Callable[[], int]
"""The number of the signal that this rank was told to stop by, 0: none."""
_MOST_NAMED = 3


def _go_on() -> int:
    return 0


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


@dataclass
class BestLoss:
    """What the validations of a run have shown. Equal on every rank, part of every checkpoint."""

    loss: float = math.inf
    """The lowest."""
    step: int | None = None
    """Whose weights had it; the newer of equals never counts. None before the first finite loss."""
    last_step: int | None = None
    """Of the newest validation."""
    reference: float = math.inf
    """What the next loss must undercut by `min_delta` to count as an improvement: the last loss that did."""
    num_in_vain: int = 0
    """Validations since that improvement."""

    def note(self, step: int, loss: float, min_delta: float) -> None:
        """Take in a validation. A loss that is not finite says nothing: nothing is better for it, nothing in vain."""
        self.last_step = step
        if not math.isfinite(loss):
            return
        if loss < self.loss:
            self.loss, self.step = loss, step
        if loss < self.reference - min_delta or math.isinf(self.reference):
            self.reference, self.num_in_vain = loss, 0
        else:
            self.num_in_vain += 1


class Validation:
    """Measures a model on `held_out` (this rank's share, as many micro-batches as of any rank); remembers the best."""

    def __init__(self, config: ValidationConfig, held_out: Iterable[MicroBatch]) -> None:
        self.config = config
        self.best = BestLoss()
        self.warnings: list[str] = []
        """Of the last run, for people; on the main rank."""
        self._held_out = held_out
        self._has_told = False

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
        self, step: int, parallel: ParallelModel, family: ModelFamily, process: Process, stop: StopSignal = _go_on
    ) -> ValidationRecord | None:
        """Measure the model after `step`, in eval mode. Collective; equal on every rank.

        None where `stop()` is a signal's number on some rank before the last micro-batch: nothing was measured then.
        Raises ValueError where nothing of what is held out counts in the loss.
        """
        self.warnings = []
        sums, losses = OutputSums(process.device), list[Tensor]()
        carry: dict[str, Any] = {}
        parallel.module.eval()
        try:
            with torch.no_grad(), Progress(f"Validation after step {step:,}", process.is_main) as progress:
                for micro_batch in progress.over(self._held_out):
                    if max_over_ranks(stop(), process):
                        return None
                    with parallel.autocast(process.device):
                        output = parallel.module(**family.batch(parallel.model, micro_batch, process.device), **carry)
                    sums.add(output)
                    if family.carry and getattr(micro_batch, "resets_R", None) is not None:
                        carry = {"carry": output.carry}
                    losses.append(output.objective.sum.detach())
        finally:
            parallel.module.train()
        total = sum_over_ranks(sums.vector, process)
        loss_sum, count = total[:2].tolist()
        if not count:
            raise ValueError(f"validation: nothing held out counts in the loss: {self._why_nothing(process)}")
        loss = loss_sum / count
        self.best.note(step, loss, self.config.min_delta)
        self._tell(step, loss, losses, parallel.model, process)
        tally = {name: value.cpu().numpy() for name, value in sums.tally(total[2:]).items()}
        return ValidationRecord(
            step=step,
            loss=loss,
            best_loss=self.best.loss,
            best_step=self.best.step,
            num_in_vain=self.best.num_in_vain,
            patience=self.config.patience,
            # What is called train_loss in training is the loss here.
            figures={
                name.removeprefix("train_"): value
                for name, value in (family.experts.figures(parallel.model, tally) if tally else {}).items()
            },
        )

    def _why_nothing(self, process: Process) -> str:
        held_out = self._held_out
        why = held_out.why_nothing_counts() if isinstance(held_out, ExplainsItself) else "it holds no value to forecast"
        return f"{'; '.join(dict.fromkeys(gather_objects(why, process)))}. Hold out other data, or more of them."

    def _tell(self, step: int, loss: float, losses: Sequence[Tensor], model: nn.Module, process: Process) -> None:
        """Which windows are left out, once; and, whenever the loss is not finite, why, and what becomes of that."""
        held_out = self._held_out
        if not self._has_told and isinstance(held_out, ExplainsItself):
            self._has_told = True
            if without := held_out.without_windows():
                more = f" and {len(without) - _MOST_NAMED:,} more" if len(without) > _MOST_NAMED else ""
                self.warnings.append(
                    f"The validation has no window of {', '.join(without[:_MOST_NAMED])}{more}, and its loss says "
                    "nothing of them: what is held out there is shorter than data.prediction_length, no series is long "
                    "enough, or validation.max_windows leaves none."
                )
            if names := [name for of_rank in gather_objects(held_out.left_out(), process) for name in of_rank]:
                num = "a window that holds" if len(names) == 1 else f"{len(names):,} windows that hold"
                more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
                self.warnings.append(
                    f"The validation leaves out {num} a value a million times farther away than the past reaches: "
                    f"{'; '.join(names[:_MOST_NAMED])}{more}."
                )
        if math.isfinite(loss):
            return
        weight = next((n for n, p in model.named_parameters() if not local_part(p).isfinite().all()), "")
        broken = next((n for n, its in enumerate(losses) if not its.isfinite()), None)
        where = ""
        if broken is not None and isinstance(held_out, ExplainsItself):
            where = held_out.largest_value(next(itertools.islice(held_out, broken, None)))
        facts = gather_objects((weight, where), process)
        weight, where = (next((fact[i] for fact in facts if fact[i]), "") for i in (0, 1))
        why = f": the model's weights are not, {weight} among them" if weight else ""
        if where and not weight:
            why = f"; the largest value among those that made it so is in {where}"
        kept = (
            f"those of step {self.best.step:,}"
            if self.best.step is not None
            else "none yet: the run would end with its last ones"
        )
        self.warnings.append(
            f"The validation loss after step {step:,} is not finite{why}. It says nothing, and does not count against "
            f"patience; the best weights are {kept}."
        )

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.best)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = BestLoss(**state)


class Scoring:
    """Scores the model after the steps at which that is due. All ranks call it together and get the same."""

    def __init__(
        self,
        parallel: ParallelModel,
        family: ModelFamily,
        process: Process,
        monitor: Monitor,
        validation: Validation | None,
        benchmark: Benchmark | None,
    ) -> None:
        self.validation = validation
        self.stopped_by = 0
        """The signal that cut off a validation, the same on every rank; 0: none."""
        self._parallel, self._family, self._process = parallel, family, process
        self._monitor = monitor
        self._benchmark = benchmark

    def validate(self, step: int, *, is_last: bool, stop: StopSignal = _go_on) -> dict[str, float]:
        """The validation loss after `step` by name, where it is due and no signal in `stop()` cuts it off."""
        if self.validation is None or not self.validation.is_due(step, is_last=is_last):
            return {}
        record = self.validation.run(step, self._parallel, self._family, self._process, stop)
        if record is None:
            self.stopped_by = max_over_ranks(stop(), self._process)
            return {}
        self._monitor.log_validation(record)
        for sentence in self.validation.warnings if self._process.is_main else ():
            self._monitor.warn("validation_data", sentence, step=step)
        self._show_continuations(step, self.validation.config)
        if self.validation.is_exhausted:
            self._monitor.event("early_end", self.validation.why_exhausted, step=step)
        return {VALIDATION_LOSS: record.loss}

    def _show_continuations(self, step: int, config: ValidationConfig) -> None:
        """How the model goes on with the recipe's prompts, where its family writes text."""
        if self._family.generator is None:
            return
        model = self._parallel.model.eval()
        with torch.no_grad(), self._parallel.answering(self._process.device):
            for prompt, text in self._family.continuations(model, config):
                self._monitor.event("continuation", f"{prompt} → {text}", step=step, prompt=prompt, text=text)
        model.train()

    def benchmark(self, step: int, run_seconds: Callable[[], float], *, is_last: bool) -> dict[str, float]:
        """The benchmark's scores after `step` by name, of the tiers that are due."""
        scores: dict[str, float] = {}
        if self._benchmark is None:
            return scores
        for tier in self._benchmark.due(step, is_last=is_last):
            model = self._parallel.model.eval()
            with self._parallel.answering(self._process.device):
                record = self._benchmark.run(step, tier, model, run_seconds)
            model.train()
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
