"""The training loop: one global batch a step, the same on one device and on many."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foreloom import subnormals
from foreloom.checkpoint.checkpointer import Checkpointer, CheckpointError, CheckpointFolder
from foreloom.checkpoint.export import whole_state_dict, write_folder
from foreloom.checkpoint.manifest import Manifest, installed_versions
from foreloom.data.loader import StepBatch, WindowLoader
from foreloom.distributed.agreement import check_agreement, check_disjoint, code_hash
from foreloom.distributed.mesh import ParallelConfig
from foreloom.distributed.parallelize import parallelize
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import max_over_ranks
from foreloom.models.family import ModelFamily
from foreloom.monitoring.device_peak import find_peak
from foreloom.monitoring.monitor import Monitor
from foreloom.training.config import TrainingConfig, autocast_dtype
from foreloom.training.data_watch import DataWatch
from foreloom.training.dry_run import worst_case
from foreloom.training.flight import FlightRecorder
from foreloom.training.interval import Interval, StepOutcome
from foreloom.training.optimizer import OptimizerConfig
from foreloom.training.scoring import Benchmark, Scoring
from foreloom.training.signals import StopRequest, exit_code
from foreloom.training.state import Progress, read_tensors, seed_step, write_tensors
from foreloom.training.step import OptimizerStep
from foreloom.training.validation import Validation

CLIPPED = 0.99
"""A gradient norm of this share of the limit, or above, counts as clipped."""


@dataclass(frozen=True)
class TrainResult:
    """How a run, or this part of it, ended. Counts and seconds are since the run began, earlier sessions included."""

    step: int
    samples: int
    loss: float
    best_loss: float
    seconds: float
    exit_code: int
    """0, or 130 / 143 where Ctrl-C / SIGTERM ended it early."""
    checkpoint: Path
    """The newest: the final one where `exit_code` is 0."""


class Trainer:
    """Trains a model from where its run folder stands to `config.steps`, or until its validation loss stops falling.

    All ranks construct one with the same arguments (their own `loader` share and `process`) and call `train` once:

        process = start(recipe.training.device)
        checkpointer = Checkpointer(run_dir, recipe.checkpoint, process, save_total_limit=..., resume=resume)
        monitor = Monitor(run_dir, recipe.training.steps, recipe.monitoring, process.is_main)
        model = family.build(...); family.initialize(model, seed)         # on the CPU, equal on all ranks
        loader = WindowLoader(recipe.data, ..., rank=process.rank, world_size=process.world_size)
        trainer = Trainer(recipe.training, recipe.optimizer, recipe.parallel, model, family, loader, process,
                          checkpointer, monitor, context_length=..., prediction_length=...)
        result = trainer.train()

    `validation` and `benchmark` score the model as it trains. `banner` is shown by the monitor; `config_hash` must
    agree between ranks. `on_start()` is called on all ranks once the run may begin or go on, before its first line.
    """

    def __init__(
        self,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        parallel_config: ParallelConfig,
        model: nn.Module,
        family: ModelFamily,
        loader: WindowLoader,
        process: Process,
        checkpointer: Checkpointer,
        monitor: Monitor,
        *,
        context_length: int,
        prediction_length: int,
        validation: Validation | None = None,
        benchmark: Benchmark | None = None,
        banner: Mapping[str, Mapping[str, Any]] | None = None,
        config_hash: str = "",
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        optimizer_config.learning_rate_of(1, config.num_steps)  # a schedule that does not fit is told before any work
        self.config, self.optimizer_config = config, optimizer_config
        self.model, self.family, self.loader, self.process = model, family, loader, process
        self.checkpointer, self.monitor = checkpointer, monitor
        self.lengths = {"context_length": context_length, "prediction_length": prediction_length}
        self.banner, self.config_hash, self.on_start = dict(banner or {}), config_hash, on_start
        self.flops_per_row = family.flops_per_row(model, context_length, prediction_length)
        self.parallel = parallelize(
            model,
            family.sharding,
            parallel_config,
            process,
            activation_checkpointing=config.activation_checkpointing,
            compile_blocks=config.compile,
            autocast_dtype=autocast_dtype(config.precision, process.device),
        )
        peak = find_peak(process.device, monitor.config.peak_flops)
        self.banner["Monitoring"] = {"MFU": peak.sentence}
        self.interval = Interval(process.device, process.world_size, self.flops_per_row, peak.flops)
        self.data_watch = DataWatch(loader)
        self.optimizer_step = OptimizerStep(
            optimizer_config, config.max_grad_norm, self.parallel, model, family, process, self.interval.stopwatch
        )
        self.scoring = Scoring(self.parallel, model, family, process, monitor, validation, benchmark)
        self.flight = FlightRecorder(loader, checkpointer.run_dir, is_main=process.is_main)
        self.progress = Progress()
        self.saved: CheckpointFolder | None = None

    @subnormals.flushed()
    def train(self) -> TrainResult:
        """Resume if there is something to resume, train, save. Collective.

        Raises ValueError where ranks disagree, a micro-batch does not fit or the last checkpoint cannot be written.
        """
        try:
            with StopRequest() as stop:
                self._resume()
                self.model.train()
                if not self._is_over:
                    self._check_ranks()
                    self._dry_run()
                self._began = time.perf_counter() - self.progress.seconds
                stopped_by = self._loop(stop)
                if not self.saved or (self._is_over and not self.saved.manifest.final):
                    self._save({})
            assert self.saved
            if stopped_by:
                asked = f"{signal.Signals(stopped_by).name} after step {self.progress.step:,}"
                self.monitor.warn("stop", f"Stopped by {asked}; --resume goes on from here.")
            rows = {"checkpoint": str(self.saved.path)}
            if self.saved.manifest.export_step not in (None, self.saved.step):
                rows["hf/"] = f"weights of step {self.saved.manifest.export_step:,}, the best validated"
            self.monitor.finish(rows, step=self.progress.step, is_early_end=self._is_over)
        finally:
            self.monitor.close()
            self.checkpointer.close()
        p = self.progress
        return TrainResult(p.step, p.samples, p.loss, p.best_loss, p.seconds, exit_code(stopped_by), self.saved.path)

    @property
    def _is_over(self) -> bool:
        return self.progress.step >= self.config.num_steps or self.scoring.is_exhausted

    def _loop(self, stop: StopRequest) -> int:
        """Step until the end, or until a rank is told to stop; gives the signal's number, 0 for none."""
        part = self.interval.stopwatch.part
        self.interval.stopwatch.reset()
        batches = iter(self.loader)
        stopped_by = 0
        with part("evaluation"):
            # What the run begins with; or what a session that was told to stop had no time for.
            loss = self.scoring.validate(self.progress.step, is_last=self._is_over)
            scores = self.scoring.benchmark(self.progress.step, self._run_seconds, is_last=self._is_over)
        if (loss and (self._is_to_restore or self._is_over)) or (scores and self.progress.step):
            with part("checkpoint"):
                self._save({**loss, **scores}, must_succeed=self._is_over)
        while not self._is_over and not stopped_by:
            with part("data_wait"):
                batch = next(batches)
            self._step(batch)
            step = self.progress.step
            if step % self.monitor.config.log_steps == 0 or self._is_over:
                self._log()
            with part("communication"):
                stopped_by = max_over_ranks(stop.signal_number, self.process)
            with part("evaluation"):
                loss = {} if stopped_by else self.scoring.validate(step, is_last=self._is_over)
                scores = {} if stopped_by else self.scoring.benchmark(step, self._run_seconds, is_last=self._is_over)
            if self._is_over and not self.interval.is_empty:
                self._log()  # the run has ended early, between two log lines
            self.monitor.report_health()
            with part("checkpoint"):
                if step % self.config.save_steps == 0 or scores or self._is_to_restore or stopped_by or self._is_over:
                    self._save({**loss, **scores}, must_succeed=self._is_over or bool(stopped_by))
        return stopped_by

    def _step(self, batch: StepBatch) -> None:
        """One global batch: gradients of the loss sum over micro-batches and ranks, then one update."""
        step = self.progress.step + 1
        seed_step(self.config.seed, step, self.process.rank)
        self._learning_rate = self.optimizer_config.learning_rate_of(step, self.config.num_steps)
        figures = self.optimizer_step.run(batch.micro_batches, self._learning_rate)
        self.interval.add(step, batch.first_sample, batch.next_sample, batch.num_rows, figures)
        self.progress.step = step
        self.progress.samples += batch.num_rows
        self.progress.flops += batch.num_rows * self.flops_per_row

    def _check_ranks(self) -> None:
        position = self.loader.state_dict()
        facts = {"code": code_hash(), "recipe": self.config_hash, "data": position["fingerprint"]}
        check_agreement(facts | {"torch": torch.__version__}, self.process)
        self._first = self.loader.batch(position["next_sample"])
        check_disjoint(self._first.samples.tolist(), self.process)

    def _dry_run(self) -> None:
        share = -(-self.config.batch_size // self.process.world_size)
        largest = max(self._first.micro_batches, key=lambda windows: windows.num_rows)
        num_rows = self.config.micro_batch_size or share
        self.optimizer_step.rehearse(worst_case(largest, num_rows=num_rows, **self.lengths))

    def _read_device(self) -> float:
        """Wait for the steps under way, note their losses, tell of skipped ones; the newest gradient norm."""
        outcomes = self.interval.read()
        limit = self.config.max_grad_norm
        for outcome in outcomes:
            if outcome.is_applied:
                self.progress.note_loss(outcome.loss)
                self.progress.num_clipped_steps += bool(limit) and outcome.grad_norm >= CLIPPED * limit
            else:
                self.progress.num_skipped_steps += 1
                self.progress.num_non_finite_steps += not outcome.is_finite
            self._look_into(outcome)
        self.progress.seconds = self._run_seconds()
        return outcomes[-1].grad_norm if outcomes else 0.0

    def _look_into(self, outcome: StepOutcome) -> None:
        """Tell of a step that went wrong, with what it was made of."""
        try:
            incident = self.flight.note(outcome)
        except OSError as error:
            self.monitor.warn(
                "flight_failed", f"step {outcome.step:,} could not be recorded ({error}); the run goes on"
            )
            return
        if incident:
            self.monitor.warn(incident.kind, incident.sentence, step=outcome.step, samples=outcome.samples)

    def _run_seconds(self) -> float:
        """Since the run began, earlier sessions included."""
        return time.perf_counter() - self._began

    def _log(self) -> None:
        grad_norm = self._read_device()
        tally = self.interval.tally.take()
        has_figures = tally and self.progress.num_unlogged
        self.progress.close_interval()
        record = self.interval.record(
            self.progress,
            grad_norm=grad_norm,
            learning_rate=self._learning_rate,
            figures=self.family.figures(self.model, tally) if has_figures else {},
            loads={name: tally[name].tolist() for name in self.family.loads if name in tally} if has_figures else {},
            data=self.data_watch.record(),
        )
        self.monitor.log(record)

    @property
    def _is_to_restore(self) -> bool:
        """Are these the weights that the run would end with?"""
        return self.scoring.step_to_restore == self.progress.step

    def _save(self, scores: Mapping[str, float], *, must_succeed: bool = True) -> None:
        self._read_device()
        validation = self.scoring.validation
        position = {
            "trainer": asdict(self.progress),
            "loader": self.loader.state_dict(),
            "monitor": self.monitor.state_dict(),
            "tally": self.interval.tally.state_dict(),
            "validation": validation.state_dict() if validation else None,
            "flight": self.flight.state_dict(),
        }
        export, export_step = self._export()
        manifest = Manifest(
            step=self.progress.step,
            samples=self.progress.samples,
            flops=self.progress.flops,
            final=self._is_over,
            scores=scores,
            fingerprint=position["loader"]["fingerprint"],
            config_hash=self.config_hash,
            world_size=self.process.world_size,
            versions=installed_versions(),
            export_step=export_step,
        )
        tensors = read_tensors(self.parallel.module, self.optimizer_step.optimizer)
        try:
            self.saved = self.checkpointer.save(
                manifest, tensors, position, export=export, step_to_keep=self.scoring.step_to_restore
            )
        except CheckpointError as error:
            if must_succeed:
                raise
            self.monitor.warn("checkpoint_failed", f"{error}. The run goes on.")

    def _export(self) -> tuple[Callable[[Path], object] | None, int | None]:
        """What writes hf/ into the checkpoint to be saved, and the step whose weights it writes."""
        step = self.progress.step
        best_step = self.scoring.step_to_restore
        if self._is_over and best_step is not None and best_step != step:
            if folder := self.checkpointer.export_of(best_step):
                return lambda target: shutil.copytree(folder, target), best_step
            missing = f"The best validated weights, of step {best_step:,}, are not in the run folder"
            self.monitor.warn("best_missing", f"{missing}: hf/ holds the last ones.")
        if self._is_over or self._is_to_restore or self.checkpointer.config.export == "all":
            weights = whole_state_dict(self.parallel.module)
            return lambda folder: write_folder(self.family, self.model, weights, folder), step
        return None, None

    def _resume(self) -> None:
        """Put everything where the newest checkpoint says, if there is one."""
        self.saved = self.checkpointer.newest()
        if self.saved:
            tensors = read_tensors(self.parallel.module, self.optimizer_step.optimizer)
            position = self.checkpointer.load(self.saved, tensors)
            write_tensors(self.parallel.module, self.optimizer_step.optimizer, tensors)
            self.progress = Progress(**position["trainer"])
            self.loader.load_state_dict(position["loader"])
            self.monitor.load_state_dict(position["monitor"])
            # What checkpoints of earlier versions, and of runs without validation, do not have.
            self.interval.tally.load_state_dict(position.get("tally", {}), self.process.device)
            if self.scoring.validation and position.get("validation"):
                self.scoring.validation.load_state_dict(position["validation"])
            if position.get("flight"):
                self.flight.load_state_dict(position["flight"])
        self.scoring.resume(self.progress.step if self.saved else -1)
        self.flight.resume(self.progress.step)
        self.on_start()
        # What `training.stream_position` finds a step's samples by.
        began_at = {"batch_size": self.config.batch_size, **self.loader.state_dict()}
        self.monitor.start(self.banner, from_step=self.progress.step, flops=self.progress.flops, **began_at)
        for notice in self.checkpointer.notices:
            self.monitor.warn("checkpoint", notice)
        if self.saved:
            self.monitor.event("resume", f"Resumed from {self.saved.path}.")
