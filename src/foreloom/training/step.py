"""One optimizer step: the gradient of a global batch, from all its micro-batches and ranks, and one update.

What outputs add up to travels as one vector: loss sum, loss count and the family's tally.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.batch import MicroBatch
from foreloom.data.loader import StepBatch
from foreloom.distributed.parallelize import ParallelModel, local_part, num_copies
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import max_over_ranks, sum_over_ranks
from foreloom.models.family import Carry, ModelFamily, ModelOutput, Tally
from foreloom.objectives.loss import sum_dtype
from foreloom.training.optimizer import Optimizer, fill_missing, make_moments
from foreloom.training.state import LaneCarry
from foreloom.training.stopwatch import Stopwatch

Prepare = Callable[[int, MicroBatch], Mapping[str, Any]]
"""prepare(number of a micro-batch, the micro-batch) -> forward's arguments."""


class StepFigures(NamedTuple):
    """What a step leaves on the device; nothing of it has been looked at."""

    totals: Tensor
    """(loss, gradient norm, count) of the global batch."""
    tally: Tally
    """Of the global batch."""
    applied: Tensor
    """1, or 0 where the step was skipped."""


class TooLargeError(Exception):
    """A micro-batch does not fit on the device of a rank. Raised on all of them; no state has changed."""


class OptimizerStep:
    """Turns this rank's micro-batches into an update of the model, the same on every rank."""

    def __init__(
        self,
        parallel: ParallelModel,
        family: ModelFamily,
        optimizer: Optimizer,
        process: Process,
        stopwatch: Stopwatch,
        carry: LaneCarry | None = None,
        *,
        restartable: bool = False,
    ) -> None:
        """`restartable`: a step that runs out of memory on a rank is given up on all of them by `TooLargeError`, for
        the trainer to make it again; ranks then add their gradients when all have theirs."""
        self.optimizer = optimizer
        self.parameters = [p for p in parallel.model.parameters() if p.requires_grad]
        scales = {id(p): group["gradient_scale"] for group in optimizer.param_groups for p in group["params"]}
        assert len(scales) == len(self.parameters) == sum(len(group["params"]) for group in optimizer.param_groups)
        self._gradient_scales = [scales[id(p)] for p in self.parameters]
        self._parallel, self._family, self._process = parallel, family, process
        self._stopwatch, self._carry = stopwatch, carry
        self._restartable = restartable
        assert not (restartable and parallel.mesh.meets_in_blocks), "none can leave the others waiting there"
        self._needs_survey = family.experts.needs_survey(parallel.model)
        assert not (self._needs_survey and carry), "a survey runs forward twice, and a stream goes on but once"

    def run(self, batch: StepBatch, learning_rate: float) -> StepFigures:
        """Gradients of the loss sum over micro-batches and ranks, then one update. Collective."""
        totals, tally = self.gradients(batch.micro_batches, batch.first_sample)
        with self._stopwatch.part("optimizer"):
            applied = self.optimizer.update(totals, learning_rate)
            self._family.experts.after_update(self._parallel.model, tally, applied)
            if self._carry:
                self._carry.go_on(applied)
        return StepFigures(totals, tally, applied)

    def rehearse(self, micro_batch: MicroBatch, *, accumulates: bool) -> None:
        """Forward, backward and a skipped update on the largest micro-batch there can be; no state changes.

        All is there that a step meets: the optimizer's moments and, where it `accumulates` over micro-batches, the
        gradients of one. Running out of memory so costs a minute, not a night: raises ValueError with advice.
        """
        try:
            make_moments(self.optimizer, self.parameters)
            totals, _ = self.gradients([micro_batch] * (1 + accumulates), 0)
            self.optimizer.update(torch.full_like(totals, torch.nan), 0.0)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(out_of_memory_sentence(error, micro_batch, self._process)) from error
        if self._carry:
            self._carry.go_on(totals.new_zeros(()))
        self.optimizer.zero_grad()

    def gradients(self, micro_batches: Sequence[MicroBatch], first_sample: int) -> tuple[Tensor, Tally]:
        """Fill every parameter's gradient; returns (loss, gradient norm, count) and the tally of the global batch."""
        device = self._process.device
        self.optimizer.zero_grad()
        sums, failure = OutputSums(device), ""
        with self._stopwatch.part("forward_backward"):
            prepare, shared = self._survey(micro_batches)
            try:
                self._accumulate(micro_batches, first_sample, sums, prepare, shared)
            except (RuntimeError, MemoryError) as error:
                if not (self._restartable and is_out_of_memory(error)):
                    raise
                failure = str(error).partition("\n")[0] or "MemoryError"
        if self._restartable:
            self._agree(failure)
        with self._stopwatch.part("optimizer"):
            fill_missing(self.parameters)
            totals, entries = global_totals(
                sums.vector, self.parameters, self._process, self._stopwatch, scales=self._gradient_scales
            )
        return totals, sums.tally(entries)

    def _accumulate(
        self,
        micro_batches: Sequence[MicroBatch],
        first_sample: int,
        sums: OutputSums,
        prepare: Prepare,
        shared: Mapping[str, Tally | Carry],
    ) -> None:
        """Forward and backward of each micro-batch, their outputs added to `sums`."""
        device = self._process.device
        for i, micro_batch in enumerate(micro_batches, start=1):
            arguments = prepare(i - 1, micro_batch)
            lane_R = np.maximum(micro_batch.sample_R - first_sample, -1)
            if self._carry:
                shared = {"carry": self._carry.rows(lane_R)}
            with self._parallel.micro_batch(is_last=i == len(micro_batches) and not self._restartable):
                with self._parallel.autocast(device):
                    output = self._parallel.module(**arguments, **shared)
                output.objective.sum.backward()
            sums.add(output)
            if self._carry:
                self._carry.note(lane_R, output.carry)
            del output  # or its forecasts would live through the next forward

    def _agree(self, failure: str) -> None:
        """Go on where every rank has its gradients, which are then added; else none does. Collective."""
        with self._stopwatch.part("communication"):
            if max_over_ranks(bool(failure), self._process):
                self.optimizer.zero_grad()
                if self._carry:
                    self._carry.forget()
                raise TooLargeError(failure or "another rank ran out of memory")
            if self._process.world_size > 1:
                fill_missing(self.parameters)
                self._parallel.sum_gradients(self.parameters)

    def _survey(self, micro_batches: Sequence[MicroBatch]) -> tuple[Prepare, Mapping[str, Tally | Carry]]:
        """What makes forward's arguments of a micro-batch, and what its forward is told of the whole batch. Collective.

        Most families need to know nothing of it; see `ExpertHooks.needs_survey`.
        """
        device = self._process.device
        prepare = lambda i, micro_batch: self._family.batch(self._parallel.model, micro_batch, device)
        if not self._needs_survey or len(micro_batches) * self._process.world_size == 1:
            return prepare, {}
        seeds = torch.randint(2**62, (len(micro_batches),)).tolist()
        arguments = [prepare(i, micro_batch) for i, micro_batch in enumerate(micro_batches)]

        def prepared(i: int, micro_batch: MicroBatch) -> Mapping[str, Any]:
            torch.manual_seed(seeds[i])  # so that both forwards drop the same activations
            return arguments[i]

        sums = OutputSums(device)
        with torch.no_grad():
            for i, micro_batch in enumerate(micro_batches):
                with self._parallel.autocast(device):
                    sums.add(self._parallel.module(**prepared(i, micro_batch), survey_only=True))
        with self._stopwatch.part("communication"):
            totals = sum_over_ranks(sums.vector, self._process)
        return prepared, {"global_tally": sums.tally(totals[2:])}


def global_totals(
    sums: Tensor,
    parameters: Sequence[nn.Parameter],
    process: Process,
    stopwatch: Stopwatch,
    *,
    scales: Sequence[float] = (),
) -> tuple[Tensor, Tensor]:
    """(loss, gradient norm, count) of the global batch, and what it tallied, in one small all-reduce. Collective.

    `sums` holds this rank's loss sum, its count and the entries of its tally. `parameters` hold gradients of the loss
    *sum*, already added over ranks. `scales`: of each one's gradient, in the norm.
    """
    held: dict[int, list[Tensor]] = {}
    for p, scale in zip(parameters, scales or [1.0] * len(parameters), strict=True):
        if p.grad is not None:
            gradient = local_part(p.grad)
            held.setdefault(num_copies(p, process), []).append(gradient if scale == 1 else gradient * scale)
    norms = {copies: torch.nn.utils.get_total_norm(found) for copies, found in held.items()}
    squared = torch.stack([norm.to(sums.dtype) ** 2 / copies for copies, norm in norms.items()]).sum().reshape(1)
    with stopwatch.part("communication"):
        everything = sum_over_ranks(torch.cat([sums, squared]), process)
    loss_sum, count, squared = everything[0], everything[1], everything[-1]
    divisor = count.clamp(min=1)
    return torch.stack([loss_sum / divisor, squared.sqrt() / divisor, count]), everything[2:-1]


class OutputSums:
    """Adds up the outputs of micro-batches as one vector, so that ranks can add theirs in one collective.

    The tally's entries come in order of its names. All micro-batches of all ranks have tallies of the same names and
    shapes.
    """

    def __init__(self, device: torch.device) -> None:
        self._dtype = sum_dtype(device)
        self._shapes: dict[str, torch.Size] = {}
        self._vector: Tensor | None = None

    def add(self, output: ModelOutput) -> None:
        shapes = {name: output.tally[name].shape for name in sorted(output.tally)}
        entries = [output.objective.sum, output.objective.count, *(output.tally[name] for name in shapes)]
        vector = torch.cat([entry.detach().reshape(-1).to(self._dtype) for entry in entries])
        if self._vector is None:
            self._vector, self._shapes = vector, shapes
        else:
            assert shapes == self._shapes, f"a tally changed from {self._shapes} to {shapes}"
            self._vector += vector

    @property
    def vector(self) -> Tensor:
        """[loss sum, loss count, *tally] of the micro-batches so far, of which there must be one."""
        assert self._vector is not None
        return self._vector

    def tally(self, entries: Tensor) -> Tally:
        """The tally whose entries these are: the vector from its third place on, once ranks have added theirs."""
        parts = entries.split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


class RunningTally:
    """The tallies of the steps since the last log line, summed on the device and read when the line is due."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}

    def add(self, tally: Tally, applied: Tensor) -> None:
        """Take in a step's tally where `applied` is 1: what a skipped step saw may not be finite."""
        for name, value in tally.items():
            value = torch.where(applied > 0, value, 0.0)
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def take(self) -> Mapping[str, np.ndarray]:
        """The sums, which begin anew. Waits for the device."""
        taken = {name: value.cpu().numpy() for name, value in self._sums.items()}
        self._sums = {}
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers. Waits for the device."""
        return {name: value.tolist() for name, value in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        dtype = sum_dtype(self._device)
        self._sums = {name: torch.tensor(value, dtype=dtype, device=self._device) for name, value in state.items()}


def is_out_of_memory(error: BaseException) -> bool:
    """Has a device, or the host, no more memory to give?"""
    is_said = any(words in str(error) for words in ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED"))
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or is_said


def out_of_memory_sentence(error: Exception, micro_batch: MicroBatch, process: Process) -> str:
    first_line = str(error).partition("\n")[0]
    smaller = f"training.micro_batch_size below {micro_batch.num_rows}, or to auto (results stay the same), or "
    return (
        f"one micro-batch of {micro_batch.size} does not fit on {process.device} of rank {process.rank} "
        f"({first_line}). Set {smaller if micro_batch.num_rows > 1 else ''}training.activation_checkpointing=true, "
        "or share the model between devices with parallel.strategy=fsdp"
    )
