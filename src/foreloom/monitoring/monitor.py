"""The monitor: turns what the trainer reports into log lines, metrics.jsonl and tracker points."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from foreloom.config.section import section
from foreloom.monitoring import console, environment
from foreloom.monitoring.health import advise, headline, lay_out, save_line
from foreloom.monitoring.log import EarlyLines, close_log, logger, open_log
from foreloom.monitoring.meters import Meters, TimeMeter
from foreloom.monitoring.metrics_file import FILE_NAME as METRICS_NAME
from foreloom.monitoring.metrics_file import MetricsFile
from foreloom.monitoring.record import BenchmarkRecord, SaveRecord, StepRecord, ValidationRecord
from foreloom.monitoring.trackers import (
    TRACKERS,
    Session,
    Tracker,
    TrackerName,
    benchmark_scalars,
    require,
    step_scalars,
    validation_scalars,
)

DEFAULT_PROJECT = "foreloom"
ALL_SAID = 5
"""Warnings of a kind."""
WARM_SECONDS = 60.0
"""Time to be measured before a run is called slow: the first steps compile and fill caches."""


@section
class MonitoringConfig:
    """What a run says about itself, and where. metrics.jsonl and training.log are always written."""

    log_steps: Annotated[int, Field(ge=1)] = 100
    """Steps between log lines; the device is read at these steps only."""
    quiet: bool = False
    """Only warnings on the console (--quiet); training.log has all lines."""
    health_steps: Annotated[int, Field(ge=0)] = 1000
    """Steps between health reports, each printed with the next log line; 0: none."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Tools that mirror metrics.jsonl: a list of `tensorboard`, `wandb` (Weights & Biases), `mlflow`, or `[none]`."""
    project: Annotated[str, Field(min_length=1)] | None = None
    """W&B's project and MLflow's experiment; unset: foreloom."""
    peak_flops: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """FLOPs a second one device can do in bf16, for model FLOPs utilisation; unset: known by the name of the GPU."""

    def __post_init__(self) -> None:
        if "none" in self.trackers and len(self.trackers) > 1:
            raise ValueError(f"trackers: `none` stands alone, but the list is {list(self.trackers)}")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers: each may be named once, but the list is {list(self.trackers)}")
        if self.project is not None and not {"wandb", "mlflow"} & set(self.trackers):
            raise ValueError("project has no effect without wandb or mlflow among the trackers; remove it")

    def implied(self) -> dict[str, Any]:
        return {"project": DEFAULT_PROJECT} if {"wandb", "mlflow"} & set(self.trackers) else {}


class Monitor:
    """The voice of one run. Every rank makes one and tells it the same; only the main one writes.

    Make it first: it keeps what the logger is told meanwhile (a model raising its limits, say) until it has started.
    Call `load_state_dict` (when resuming), `start`, then `log`, `log_validation` and `event` as the run goes, `finish`
    at its end. All messages of the logger `foreloom` and its children go the same way: INFO and above to the console
    and training.log of the main rank, errors only to the console of the others.

    A file that cannot be written (a full disk), or a tracker that fails, costs one warning, never the run. Raises
    ValueError where a tracker's package is not installed.
    """

    def __init__(self, run_dir: str | Path, total_steps: int, config: MonitoringConfig, is_main: bool = True) -> None:
        require(config.trackers)
        self.run_dir = Path(run_dir)
        self.total_steps = total_steps
        self.config = config
        self.is_main = is_main
        self._meters = Meters()
        self._owes_report = False
        self._session_time: TimeMeter | None = None  # since its first log line
        self._slow_parts: set[str] = set()
        self._file: MetricsFile | None = None
        self._trackers: list[Tracker] = []
        self._early = EarlyLines(is_main)
        self._handlers: list[logging.Handler] = []
        self._broken: set[str] = set()
        self._num_warnings: dict[str, int] = {}

    def start(
        self, banner: Mapping[str, Mapping[str, Any]], *, from_step: int = 0, flops: float = 0.0, **fields: Any
    ) -> None:
        """Open the outputs and print the banner: a box of titled sections (Model, Optimization, Distributed, Data).

        The session goes on after `from_step`, with so many `flops` spent: in trackers, what an earlier session said of
        later steps is void. `fields`, for programs, join the event `start`, as `from_step` does.
        """
        self._early.stop()
        self._handlers = open_log(self.run_dir, is_main=self.is_main, quiet=self.config.quiet)
        if not self.is_main:
            self._early.say()
            return
        with self._lasting(environment.FILE_NAME):
            environment.write_environment(self.run_dir)
        self._file = MetricsFile(self.run_dir)
        session = Session(
            run_dir=self.run_dir,
            project=self.config.project or DEFAULT_PROJECT,
            first_step=from_step + 1,
            flops=flops,
        )
        for name in self.config.trackers:
            if name != "none":
                with self._tracking(name):
                    self._trackers.append(TRACKERS[name](session))
        monitoring = {
            "run folder": self.run_dir,
            "log line": f"every {self.config.log_steps:,} steps",
            "health report": f"every {self.config.health_steps:,} steps" if self.config.health_steps else "none",
            "trackers": self.config.trackers,
        }
        logger.info(console.box({**banner, "Monitoring": {**monitoring, **banner.get("Monitoring", {})}}))
        self._early.say()
        self._write_event(
            "start",
            "info",
            f"Session began: {self.total_steps:,} steps in all.",
            None,
            {"banner": banner, "from_step": from_step, **fields},
        )

    def log(self, record: StepRecord) -> None:
        """Take in a logging step (every `log_steps`-th and the last) and, on the main rank, print and write it."""
        self._owes_report = self._owes_report or self._is_report_due(record.step)
        surge = self._meters.update(record)
        if not self.is_main:
            return
        # Before the first finite loss there is nothing to smooth.
        loss = self._meters.loss
        ema = math.nan if loss.ema is None else loss.ema
        best = math.nan if loss.best is None else loss.best
        logger.info(console.log_line(record, total_steps=self.total_steps, ema=ema, best=best, surge=surge))
        if record.figures:
            logger.info(console.figures_line(record.figures))
        self._write({"kind": "step", **dataclasses.asdict(record), "ema": ema, "best": best})
        self._track(record.step, step_scalars(record, ema=ema))
        self._watch_time(record)

    def report_health(self) -> None:
        """Print and write the health report that the newest logging step made due, if it did.

        Call it after that step's validation and benchmark, so that they are in it.
        """
        if self._owes_report and self.is_main:
            logger.info(console.box(lay_out(self._meters, self.total_steps)))
            self._write_health(self.total_steps)
            self._meters.time.reset()
        self._owes_report = False

    def log_validation(self, record: ValidationRecord) -> None:
        """Take in a validation and, on the main rank, print and write it: an event of the kind `validation`."""
        self._meters.validation = record
        sentence = console.validation_line(record)
        self.event("validation", sentence, **dataclasses.asdict(record))
        if record.figures and self.is_main:
            logger.info(console.figures_line(record.figures))
        self._track(record.step, validation_scalars(record))

    def log_save(self, record: SaveRecord) -> None:
        """Take in a checkpoint and, on the main rank, print and write it: an event of the kind `save`."""
        self._meters.save = record
        self.event("save", save_line(record), **dataclasses.asdict(record))

    def log_benchmark(self, record: BenchmarkRecord) -> None:
        """Take in a benchmark and, on the main rank, print and write it: an event of the kind `benchmark`."""
        self._meters.benchmarks[record.tier] = record
        self.event("benchmark", console.benchmark_line(record), **dataclasses.asdict(record))
        self._track(record.step, benchmark_scalars(record))

    def event(self, kind: str, sentence: str, *, step: int | None = None, **fields: Any) -> None:
        """Say something that happened on every rank at once; `kind` and `fields` are for programs, the rest for people.

        `step` is that of the newest log line where it is not given.
        """
        if self.is_main:
            logger.info(sentence)
            self._write_event(kind, "info", sentence, step, fields)

    def warn(self, kind: str, sentence: str, *, step: int | None = None, **fields: Any) -> None:
        """As `event`, for what the user should look at.

        All are in metrics.jsonl; said are the first `ALL_SAID` of a kind, then the 10th, the 100th and so on.
        """
        if not self.is_main:
            return
        number = self._num_warnings[kind] = self._num_warnings.get(kind, 0) + 1
        if number <= ALL_SAID:
            rest = f" ({kind.replace('_', ' ')} number {number}: from now on only the 10th, 100th ... is shown here)"
            logger.warning(sentence + rest * (number == ALL_SAID))
        elif number == 10 ** round(math.log10(number)):
            logger.warning(f"{sentence} ({kind.replace('_', ' ')} number {number:,}; all are in {METRICS_NAME})")
        self._write_event(kind, "warning", sentence, step, fields)

    def finish(self, result: Mapping[str, Any], *, step: int | None = None, is_end: bool = False) -> None:
        """Print the end box (the rows of `result`, such as the checkpoint's path, come last) and close the outputs.

        `step` is the last one made; that of the newest log line where it is not given. `is_end`: the run has come to
        its end, although steps may be left.
        """
        if self.is_main:
            step = self._meters.step if step is None else step
            is_end = is_end or step >= self.total_steps
            if is_end and self.config.health_steps and self._meters.time.seconds_by_part:
                # For the page of the run, which shows the newest.
                self._write_health(self._meters.step if step < self.total_steps else self.total_steps)
            outcome = "Stopped" if not is_end else "Finished" if step >= self.total_steps else "Finished early"
            title = f"{outcome} at step {step:,} of {self.total_steps:,}"
            rows = {**self.summary(), **result}
            if 0 < self._meters.step < step:
                rows = {"figures": f"those of the log line of step {self._meters.step:,}", **rows}
            logger.info(console.box({title: rows}))
            self._write_event("finish", "info", f"{title}.", step, {"result": rows})
        self.close()

    def close(self) -> None:
        """Close the outputs without a word, also after an error. Closing twice does nothing."""
        for tracker in self._trackers:
            with self._tracking(tracker.name):
                tracker.close()
        self._trackers = []
        self._file = None
        self._early.stop()
        close_log(self._handlers)
        self._handlers = []

    def summary(self) -> dict[str, Any]:
        """The run in a few figures, ready for people: label -> text."""
        meters = self._meters
        loss, last = meters.loss, meters.last
        if last is None:
            return {"logged": "nothing yet"}
        rows: dict[str, Any] = {
            "time": console.duration(last.seconds),
            "rows": last.num_rows,
        }
        if loss.first is not None and loss.last is not None:
            change = (loss.last - loss.first) / abs(loss.first) if loss.first else 0.0
            rows["loss"] = f"{loss.first:.4f} -> {loss.last:.4f} ({change:+.1%})"
            rows["best loss"] = f"{loss.best:.4f} at step {loss.best_step:,}"
            drops = "drop" if loss.num_milestones == 1 else "drops"
            rows["milestones"] = f"{loss.num_milestones} {drops} of {loss.MILESTONE_DROP:.0%} or more"
        if last.seconds:
            rows["mean speed"] = f"{last.step / last.seconds:.1f} stp/s, {last.num_rows / last.seconds:.0f} rows/s"
        if meters.peak_memory_bytes is not None:
            rows["peak memory"] = f"{meters.peak_memory_bytes / 2**30:.1f} GB"
        rows["gradients"] = f"{meters.grad_norm.num_explosions} explosions, {last.num_skipped_steps} steps skipped"
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: what the figures of later log lines and reports depend on. That of the main rank counts."""
        return {**self._meters.state_dict(), "slow_parts": sorted(self._slow_parts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._meters.load_state_dict(state)
        self._slow_parts = set(state["slow_parts"])

    def _write_health(self, total_steps: int) -> None:
        numbers = {"total_steps": total_steps, "meters": self._meters.state_dict()}
        self._write_event("health", "info", headline(self._meters), None, numbers)

    def _is_report_due(self, step: int) -> bool:
        """Has a multiple of `health_steps` been passed since the newest log line?"""
        every = self.config.health_steps
        return bool(every) and step // every > self._meters.step // every

    def _watch_time(self, record: StepRecord) -> None:
        """Say once a part that it takes too much of the session's time."""
        if self._session_time is None:
            self._session_time = TimeMeter()
            return
        self._session_time.update(record.seconds_by_part)
        seconds = self._session_time.seconds_by_part
        advice = advise(seconds)
        if advice and sum(seconds.values()) >= WARM_SECONDS and advice.part not in self._slow_parts:
            self._slow_parts.add(advice.part)
            self.warn("slow", f"{advice.sentence}.", part=advice.part, seconds_by_part=seconds)

    def _write_event(self, kind: str, level: str, sentence: str, step: int | None, fields: Mapping[str, Any]) -> None:
        assert kind != "step", "records of this kind are logging steps"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        step = self._meters.step if step is None else step
        self._write({"kind": kind, "level": level, "sentence": sentence, "step": step, "time": now, **fields})

    def _track(self, step: int, values: Mapping[str, float]) -> None:
        # Of a step between two log lines: FLOPs grow by about as much a step.
        newest = self._meters.last
        flops = newest.flops * step / newest.step if newest else 0.0
        for tracker in list(self._trackers):
            with self._tracking(tracker.name):
                tracker.scalars(step, flops, values)

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file:
            with self._lasting(self._file.path.name):
                self._file.append(record)

    @contextmanager
    def _lasting(self, output: str) -> Generator[None]:
        """Where the disk refuses, say so once an output and let the run go on."""
        try:
            yield
        except OSError as error:
            if output not in self._broken:
                self._broken.add(output)
                logger.warning(f"{output} cannot be written ({error}); the run goes on without it")

    @contextmanager
    def _tracking(self, name: str) -> Generator[None]:
        """Where a tracker fails, say so and let the run go on without it."""
        try:
            yield
        except Exception as error:  # other people's code, networks and servers: whatever it is, the run outlives it
            self._trackers = [tracker for tracker in self._trackers if tracker.name != name]
            reason = " ".join(str(error).split()) or type(error).__name__
            self.warn("tracker", f"{name} cannot be written ({reason}); the run goes on without it")
