"""The training loop: one global batch a step, the same on one device and on many, whatever the data are."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreloom import subnormals
from foreloom.checkpoint.checkpointer import Checkpointer, CheckpointError, CheckpointFolder, Export
from foreloom.checkpoint.export import whole_state_dict, write_folder
from foreloom.checkpoint.manifest import Manifest, OtherVersionError, installed_versions
from foreloom.data.batch import MicroBatch
from foreloom.data.loader import BatchLoader, StepBatch
from foreloom.distributed.agreement import check_agreement, check_disjoint, code_files, code_hash
from foreloom.distributed.parallelize import ParallelModel
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import max_over_ranks
from foreloom.models.family import ModelFamily
from foreloom.monitoring.console import duration
from foreloom.monitoring.environment import find_peak, peak_bytes
from foreloom.monitoring.health import bytes_in_words
from foreloom.monitoring.monitor import Monitor
from foreloom.monitoring.record import SaveRecord
from foreloom.training.config import TrainingConfig
from foreloom.training.incidents import Incidents
from foreloom.training.log_interval import DataWatch, LogInterval
from foreloom.training.optimizer import Optimizer
from foreloom.training.scoring import Benchmark, Scoring, Validation
from foreloom.training.signals import StopRequest, exit_code
from foreloom.training.state import LaneCarry, RunProgress, Stateful, read_tensors, seed_step, write_tensors
from foreloom.training.step import OptimizerStep, TooLargeError, out_of_memory_sentence

CLIPPED = 0.99
"""A gradient norm of this share of the limit, or above, counts as clipped."""


@dataclass(frozen=True)
class TrainResult:
    """How a run, or this part of it, ended. Counts and seconds are since the run began, earlier sessions included."""

    step: int
    num_rows: int
    loss: float
    best_loss: float
    seconds: float
    exit_code: int
    """0, or 130, 143, 138 where Ctrl-C, SIGTERM, SIGUSR1 ended it early."""
    checkpoint: Path
    """The newest: the final one where `exit_code` is 0."""


class Trainer:
    """Trains a model from where its run folder stands to `config.steps`, or until its validation loss stops falling.

    All ranks construct one with the same arguments (their own share of `loader`, and `process`) and call `train`
    once; `run.build` shows how. `learning_rate(k)` is that of update k, from 1; `flops_per_row` what a row costs.
    `validation` and `benchmark` score the model as it trains; `frozen` knows what is not trained. `banner` is shown
    by the monitor; `config_hash` must agree between ranks. `counted_bytes`: what a device will hold by count, where
    the size of micro-batches was chosen by it. Micro-batches that do not fit are halved: on one device always, on
    several with DDP where their size was so chosen. `card(step)` is the
    README.md of hf/ folders. `on_start()` is called on all ranks once the run may begin or go on, before its first
    line.
    """

    def __init__(
        self,
        config: TrainingConfig,
        family: ModelFamily,
        parallel: ParallelModel,
        optimizer: Optimizer,
        learning_rate: Callable[[int], float],
        loader: BatchLoader,
        process: Process,
        checkpointer: Checkpointer,
        monitor: Monitor,
        *,
        flops_per_row: float,
        validation: Validation | None = None,
        benchmark: Benchmark | None = None,
        frozen: Stateful | None = None,
        banner: Mapping[str, Mapping[str, Any]] | None = None,
        config_hash: str = "",
        counted_bytes: int | None = None,
        card: Callable[[int], str] = lambda step: "",
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.family, self.parallel, self.process = config, family, parallel, process
        self.optimizer, self.learning_rate, self.loader = optimizer, learning_rate, loader
        self.checkpointer, self.monitor = checkpointer, monitor
        self.config_hash, self.on_start, self.flops_per_row = config_hash, on_start, flops_per_row
        self.card = card
        peak = find_peak(process.device, monitor.config.peak_flops)
        self.banner = {**(banner or {}), "Monitoring": {"MFU": peak.sentence}}
        self.interval = LogInterval(process.device, process.world_size, flops_per_row, peak.flops)
        self.data_watch = DataWatch(loader)
        self.carry = None
        if family.carry:
            self.carry = LaneCarry(family.carry(parallel.model, config.batch_size, process.device), process)
        self.counted_bytes = counted_bytes
        is_alone = process.world_size == 1
        restartable = not parallel.mesh.meets_in_blocks and (is_alone or counted_bytes is not None)
        self.optimizer_step = OptimizerStep(
            parallel, family, optimizer, process, self.interval.stopwatch, self.carry, restartable=restartable
        )
        self.frozen = frozen
        self.scoring = Scoring(parallel, family, process, monitor, validation, benchmark)
        self.incidents = Incidents(checkpointer.run_dir)
        self.progress = RunProgress()
        self.saved: CheckpointFolder | None = None
        """The newest, whole or being written."""
        self._saved_before: CheckpointFolder | None = None
        self._stall_seconds = 0.0

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint keeps beside tensors, by name."""
        parts: dict[str, Stateful] = {
            "trainer": self.progress,
            "loader": self.loader,
            "monitor": self.monitor,
            "tally": self.interval.tally,
            "incidents": self.incidents,
        }
        sometimes = {"validation": self.scoring.validation, "frozen": self.frozen}
        return parts | {name: part for name, part in sometimes.items() if part}

    @subnormals.flushed()
    def train(self) -> TrainResult:
        """Resume if there is something to resume, train, save. Collective.

        Raises ValueError where ranks disagree, a micro-batch does not fit or the last checkpoint cannot be written, and
        FutileRunError where steps change nothing.
        """
        try:
            with StopRequest() as stop:
                self._resume()
                self.parallel.model.train()
                if not self._is_over:
                    self._check_ranks()
                    self._rehearse()
                self._began = time.perf_counter() - self.progress.seconds
                stopped_by = self._loop(stop)
            assert self.saved
            if stopped_by:
                asked = f"{signal.Signals(stopped_by).name} after step {self.progress.step:,}"
                self.monitor.warn("stop", f"Stopped by {asked}; --resume goes on from here.")
            # The newest log line knows nothing of the validation and the benchmark after it.
            took = duration(self._run_seconds())
            rows = {"time": took, "checkpoint": str(self.saved.path), **self._memory_in_words()}
            if self.saved.manifest.export_step not in (None, self.saved.step):
                rows["hf/"] = f"weights of step {self.saved.manifest.export_step:,}, the best validated"
            self.monitor.finish(rows, step=self.progress.step, is_end=self._is_over)
        finally:
            self.monitor.close()
            self.checkpointer.close()
        p = self.progress
        return TrainResult(p.step, p.num_rows, p.loss, p.best_loss, p.seconds, exit_code(stopped_by), self.saved.path)

    @property
    def _is_over(self) -> bool:
        return self.progress.step >= self.config.num_steps or self.scoring.is_exhausted

    def _loop(self, stop: StopRequest) -> int:
        """Score and save what there is, then step, until the end or until a rank is told to stop; gives the signal's
        number, 0 for none."""
        part = self.interval.stopwatch.part
        self.interval.stopwatch.reset()
        batches = iter(self.loader)
        while True:
            with part("communication"):
                stopped_by = max_over_ranks(stop.signal_number, self.process)
            # A session that is told to stop scores nothing; the one that goes on begins with it.
            loss, scores = ({}, {}) if stopped_by else self._score(stop)
            stopped_by = stopped_by or self.scoring.stopped_by
            if self._is_over and not self.interval.is_empty:
                self._log()  # the run has ended early, between two log lines
            self.monitor.report_health()
            with part("checkpoint"):
                if self._is_over or stopped_by:
                    self._settle()
                if self._is_save_due(loss, scores, is_stopped=bool(stopped_by)):
                    self._save({**loss, **scores}, must_succeed=self._is_over or bool(stopped_by))
            if self._is_over or stopped_by:
                return stopped_by
            with part("data_wait"):
                batch = next(batches)
            if self._step(batch):
                batches.close()
                batches = iter(self.loader)
            if self.progress.step % self.monitor.config.log_steps == 0 or self._is_over:
                self._log()

    def _score(self, stop: StopRequest) -> tuple[dict[str, float], dict[str, float]]:
        """The validation loss and the benchmark's scores of the model as it is, where they are due."""
        step = self.progress.step
        with self.interval.stopwatch.part("evaluation"):
            loss = self.scoring.validate(step, is_last=self._is_over, stop=lambda: stop.signal_number)
            if self.scoring.stopped_by:
                return {}, {}
            return loss, self.scoring.benchmark(step, self._run_seconds, is_last=self._is_over)

    def _is_save_due(self, loss: Mapping[str, float], scores: Mapping[str, float], *, is_stopped: bool) -> bool:
        """Is the model as it is to be kept? What has been saved already is saved again only with new scores."""
        step = self.progress.step
        if (loss and (self._is_to_restore or self._is_over)) or (scores and step):
            return True
        if self.saved and self.saved.step == step:
            return self._is_over and not self.saved.manifest.final
        return is_stopped or self._is_over or (step > 0 and step % self.config.save_steps == 0)

    def _step(self, batch: StepBatch) -> bool:
        """One global batch: gradients of the loss sum over micro-batches and ranks, then one update. Were micro-batches
        halved for it?"""
        step = self.progress.step + 1
        is_smaller = False
        while True:
            seed_step(self.config.seed, step, self.process.rank)
            try:
                figures = self.optimizer_step.run(batch, self.learning_rate(step))
                break
            except TooLargeError as error:
                failure = TooLargeError(*error.args)  # without the frames that hold the activations
            self._halve_micro_batches(failure, batch.micro_batches[0])
            batch, is_smaller = self.loader.batch(batch.first_sample), True
        self.interval.add(step, batch.first_sample, batch.next_sample, batch.num_rows, figures)
        self.progress.step = step
        self.progress.num_rows += batch.num_rows
        self.progress.flops += batch.num_rows * self.flops_per_row
        return is_smaller

    def _rehearse(self) -> None:
        """Try a step of the largest micro-batches there can be, or smaller ones until they fit."""
        while True:
            largest = self.loader.largest()
            try:
                return self.optimizer_step.rehearse(largest, accumulates=self.loader.accumulates)
            except TooLargeError as error:
                failure = TooLargeError(*error.args)
            self._halve_micro_batches(failure, largest)

    def _halve_micro_batches(self, failure: TooLargeError, micro_batch: MicroBatch) -> None:
        """ValueError where they are of one row already."""
        if self.process.device.type == "cuda":
            torch.cuda.empty_cache()
        num_rows = self.loader.halve_micro_batches()
        if not num_rows:
            raise ValueError(out_of_memory_sentence(failure, micro_batch, self.process)) from failure
        self.monitor.warn(
            "out_of_memory",
            f"A micro-batch of {micro_batch.size} did not fit ({failure}). From here on they have {num_rows:,} rows at "
            "most, and the step is made again: the global batch, and with it the result, stays the same.",
            step=self.progress.step + 1,
            micro_batch_size=num_rows,
        )

    def _memory_in_words(self) -> dict[str, str]:
        if self.counted_bytes is None:
            return {}
        size, of = peak_bytes(self.process.device)
        return {"memory": f"{bytes_in_words(self.counted_bytes)} counted, {bytes_in_words(size)} measured {of}"}

    def _check_ranks(self) -> None:
        position = self.loader.state_dict()
        facts = {"code": code_hash(), "recipe": self.config_hash, "data": position["fingerprint"]}
        check_agreement(facts | {"torch": torch.__version__}, self.process, {"code": code_files})
        check_disjoint(self.loader.batch(position["next_sample"]).samples.tolist(), self.process)

    def _read_device(self) -> float:
        """Wait for the steps under way, note their losses, tell of those that went wrong; the newest gradient norm."""
        outcomes = self.interval.read()
        limit = self.optimizer.max_grad_norm
        for outcome in outcomes:
            self.progress.loss_terms += round(outcome.count)
            if outcome.is_applied:
                self.progress.note_loss(outcome.loss)
                self.progress.num_skipped_in_a_row = 0
                self.progress.num_clipped_steps += bool(limit) and outcome.grad_norm >= CLIPPED * limit
            else:
                self.progress.num_skipped_steps += 1
                self.progress.num_skipped_in_a_row += 1
                self.progress.num_non_finite_steps += not outcome.is_finite
            if incident := self.incidents.note(outcome):
                fields = {"samples": outcome.samples, "loss": outcome.loss, "grad_norm": outcome.grad_norm}
                self.monitor.warn(
                    incident.kind, incident.sentence, step=outcome.step, deviations=incident.deviations, **fields
                )
        self.progress.seconds = self._run_seconds()
        return outcomes[-1].grad_norm if outcomes else 0.0

    def _run_seconds(self) -> float:
        """Since the run began, earlier sessions included."""
        return time.perf_counter() - self._began

    def _log(self) -> None:
        self._tell_of_save()
        grad_norm = self._read_device()
        tally = self.interval.tally.take()
        if not self.progress.num_unlogged:
            tally = {}
        self.progress.close_interval()
        experts, learning_rate = self.family.experts, self.learning_rate(self.progress.step)
        scales = {group["name"]: group["lr_scale"] for group in self.optimizer.param_groups}
        record = self.interval.record(
            self.progress,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            learning_rates={name: learning_rate * scale for name, scale in scales.items()}
            if any(scale != 1 for scale in scales.values())
            else {},
            figures=experts.figures(self.parallel.model, tally) if tally else {},
            loads={name: tally[name].tolist() for name in experts.loads if name in tally},
            data=self.data_watch.record(),
        )
        self.monitor.log(record)
        self.incidents.check(self.progress, limit=self.config.max_skipped_steps, is_over=self._is_over)

    @property
    def _is_to_restore(self) -> bool:
        """Are these the weights that the run would end with?"""
        return self.scoring.step_to_restore == self.progress.step

    def _save(self, scores: Mapping[str, float], *, must_succeed: bool = True) -> None:
        began = time.perf_counter()
        self._settle()
        self._read_device()
        position = {name: part.state_dict() for name, part in self.parts.items()}
        weights, export, export_step = self._export()
        manifest = Manifest(
            step=self.progress.step,
            num_rows=self.progress.num_rows,
            flops=self.progress.flops,
            final=self._is_over,
            scores=scores,
            fingerprint=position["loader"]["fingerprint"],
            config_hash=self.config_hash,
            world_size=self.process.world_size,
            versions=installed_versions(),
            export_step=export_step,
        )
        tensors = read_tensors(self.parallel.module, self.optimizer, self.carry)
        step_to_keep = self.scoring.step_to_restore
        try:
            saved = self.checkpointer.save(
                manifest, tensors, position, export=export, weights=weights, step_to_keep=step_to_keep
            )
            if must_succeed:
                self.checkpointer.wait()
        except CheckpointError:
            if must_succeed:
                raise
        else:
            self._saved_before, self.saved = self.saved, saved
        self._stall_seconds = time.perf_counter() - began
        self._tell_of_save()

    def _settle(self) -> None:
        """Wait for the checkpoint that is being written behind training. Collective."""
        try:
            self.checkpointer.wait()
        except CheckpointError:
            self.saved = self._saved_before
        self._tell_of_save()

    def _tell_of_save(self) -> None:
        """How the newest save has gone, once it has come to an end."""
        if (written := self.checkpointer.written) is None:
            return
        self.checkpointer.written = None
        if written.failure:
            self.monitor.warn("checkpoint_failed", f"{written.failure}. The run goes on.", step=written.step)
        else:
            self.monitor.log_save(SaveRecord(written.step, self._stall_seconds, written.seconds, written.num_bytes))

    def _export(self) -> tuple[Mapping[str, Tensor], Export | None, int | None]:
        """The weights for hf/ of the checkpoint to be saved, what writes it, and the step whose weights it has."""
        step = self.progress.step
        best_step = self.scoring.step_to_restore
        if self._is_over and best_step is not None and best_step != step:
            if folder := self.checkpointer.export_of(best_step):
                return {}, lambda target, _: shutil.copytree(folder, target), best_step
            missing = f"The best validated weights, of step {best_step:,}, are not in the run folder"
            self.monitor.warn("best_missing", f"{missing}: hf/ holds the last ones.")
        if self._is_over or self._is_to_restore or self.checkpointer.config.export == "all":
            card = self.card(step)
            write = lambda folder, weights: write_folder(self.family, self.parallel.model, weights, folder, card)
            return whole_state_dict(self.parallel.module), write, step
        return {}, None, None

    def _check_length(self) -> None:
        done, wanted = self.progress.step, self.config.num_steps
        if done > wanted:
            raise ValueError(
                f"{self.checkpointer.run_dir} has made {done:,} steps, and training.steps is {wanted:,}: there is "
                f"nothing to go on with. Give more than {done:,}, or train in another folder"
            )

    def _load_parts(self, position: Mapping[str, Any], saved: CheckpointFolder) -> None:
        """Raises OtherVersionError where a part of the checkpoint is not what this version keeps."""
        written_by = saved.manifest.versions.get("foreloom", "of an unknown version")
        parts = self.parts
        unknown = position.keys() - parts.keys() - {"validation"}  # a run may lose its validation, or get one
        if unknown:
            raise OtherVersionError(saved.path, f"keeps {unknown.pop()!r}, which is not known here", written_by)
        for name in position.keys() & parts.keys():
            try:
                parts[name].load_state_dict(position[name])
            except (KeyError, TypeError) as error:
                raise OtherVersionError(
                    saved.path, f"keeps something else of its {name} ({error})", written_by
                ) from error

    def _resume(self) -> None:
        """Put everything where the newest checkpoint says, if there is one."""
        self.saved = self.checkpointer.newest()
        if self.saved:
            tensors = read_tensors(self.parallel.module, self.optimizer, self.carry)
            position = self.checkpointer.load(self.saved, tensors)
            write_tensors(self.parallel.module, self.optimizer, tensors)
            self._load_parts(position, self.saved)
            self._check_length()
        self.scoring.resume(self.progress.step if self.saved else -1)
        self.on_start()
        # What `incidents.position_of` finds a step's samples by.
        began_at = {"batch_size": self.config.batch_size, **self.loader.state_dict()}
        self.monitor.start(self.banner, from_step=self.progress.step, flops=self.progress.flops, **began_at)
        for notice in self.checkpointer.notices:
            self.monitor.warn("checkpoint", notice)
        if self.saved:
            rows = self.loader.halved_to
            smaller = f" Micro-batches have {rows:,} rows at most, to which they were halved." if rows else ""
            self.monitor.event("resume", f"Resumed from {self.saved.path}.{smaller}")
