"""The monitor: turns what the trainer reports into log lines, metrics.jsonl and tracker points."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foreloom.monitoring import console, environment
from foreloom.monitoring.config import DEFAULT_PROJECT, MonitoringConfig
from foreloom.monitoring.health import Health, headline, report
from foreloom.monitoring.lines import EarlyLines, close_lines, logger, open_lines, replay
from foreloom.monitoring.meters import GradNormMeter, LearningRateMeter, LossMeter, TimeMeter
from foreloom.monitoring.metrics_file import MetricsFile
from foreloom.monitoring.record import BenchmarkRecord, StepRecord, ValidationRecord
from foreloom.monitoring.scalars import benchmark_scalars, step_scalars, validation_scalars
from foreloom.monitoring.time_parts import advise
from foreloom.monitoring.trackers import TRACKERS, Session, Tracker, require

WARM_SECONDS = 60.0
"""Time to be measured before a run is called slow: the first steps compile and fill caches."""


class Monitor:
    """The voice of one run. Every rank makes one and tells it the same; only the main one writes.

    Make it first: it keeps what the logger is told meanwhile (a model raising its limits, say) until it has started.
    Call `load_state_dict` (when resuming), `start`, then `log`, `log_validation` and `event` as the run goes, `finish`
    at its end. All messages of the logger `foreloom` and its children go the same way: INFO and above to the console
    and training.log of the main rank, warnings only to the console of the others.

    A file that cannot be written (a full disk), or a tracker that fails, costs one warning, never the run. Raises
    ValueError where a tracker's package is not installed.
    """

    def __init__(self, run_dir: str | Path, total_steps: int, config: MonitoringConfig, is_main: bool = True) -> None:
        require(config.trackers)
        self.run_dir = Path(run_dir)
        self.total_steps = total_steps
        self.config = config
        self.is_main = is_main
        self._loss = LossMeter()
        self._grad_norm = GradNormMeter()
        self._learning_rate = LearningRateMeter()
        self._time = TimeMeter()  # since the last health report
        self._owes_report = False
        self._session_time: TimeMeter | None = None  # since its first log line
        self._slow_parts: set[str] = set()
        self._last: StepRecord | None = None
        self._validation: ValidationRecord | None = None
        self._benchmarks: dict[str, BenchmarkRecord] = {}
        self._peak_memory_bytes: int | None = None
        self._file: MetricsFile | None = None
        self._trackers: list[Tracker] = []
        self._early = EarlyLines()
        self._handlers: list[logging.Handler] = []
        self._broken: set[str] = set()

    def start(
        self, banner: Mapping[str, Mapping[str, Any]], *, from_step: int = 0, flops: float = 0.0, **fields: Any
    ) -> None:
        """Open the outputs and print the banner: a box of titled sections (Model, Optimization, Distributed, Data).

        The session goes on after `from_step`, with so many `flops` spent: in trackers, what an earlier session said of
        later steps is void. `fields`, for programs, join the event `start`, as `from_step` does.
        """
        early = self._early.take()
        self._handlers = open_lines(self.run_dir, is_main=self.is_main)
        if not self.is_main:
            replay(early)
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
        replay(early)
        self._write_event(
            "start",
            "info",
            f"Session began: {self.total_steps:,} steps in all.",
            None,
            {"banner": banner, "from_step": from_step, **fields},
        )

    def log(self, record: StepRecord) -> None:
        """Take in a logging step (every `log_steps`-th and the last) and, on the main rank, print and write it."""
        self._loss.update(record.step, record.loss)
        surge = self._grad_norm.update(record.grad_norm)
        self._learning_rate.update(record.learning_rate)
        self._time.update(record.seconds_by_part)
        self._owes_report = self._owes_report or self._is_report_due(record.step)
        self._last = record
        if record.memory_bytes is not None:
            self._peak_memory_bytes = max(record.memory_bytes, self._peak_memory_bytes or 0)
        if not self.is_main:
            return
        # Before the first finite loss there is nothing to smooth.
        ema = math.nan if self._loss.ema is None else self._loss.ema
        best = math.nan if self._loss.best is None else self._loss.best
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
        if self._owes_report and self._last and self.is_main:
            self._report(self._last)
        self._owes_report = False

    def log_validation(self, record: ValidationRecord) -> None:
        """Take in a validation and, on the main rank, print and write it: an event of the kind `validation`."""
        self._validation = record
        sentence = console.validation_line(record)
        self.event("validation", sentence, **dataclasses.asdict(record))
        if record.figures and self.is_main:
            logger.info(console.figures_line(record.figures))
        self._track(record.step, validation_scalars(record))

    def log_benchmark(self, record: BenchmarkRecord) -> None:
        """Take in a benchmark and, on the main rank, print and write it: an event of the kind `benchmark`."""
        self._benchmarks[record.tier] = record
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
        """As `event`, for what the user should look at. Ranks other than the main one print it too."""
        logger.warning(sentence)
        self._write_event(kind, "warning", sentence, step, fields)

    def finish(self, result: Mapping[str, Any], *, step: int | None = None, is_early_end: bool = False) -> None:
        """Print the end box (the rows of `result`, such as the checkpoint's path, come last) and close the outputs.

        `step` is the last one made; that of the newest log line where it is not given. `is_early_end`: the run has come
        to its end although steps are left.
        """
        if self.is_main:
            step = self._last_step if step is None else step
            outcome = "Finished" if step >= self.total_steps else "Finished early" if is_early_end else "Stopped"
            title = f"{outcome} at step {step:,} of {self.total_steps:,}"
            rows = {**self.summary(), **result}
            if self._last is not None and self._last.step < step:
                rows = {"figures": f"those of the log line of step {self._last.step:,}", **rows}
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
        logger.removeHandler(self._early)
        close_lines(self._handlers)
        self._handlers = []

    def summary(self) -> dict[str, Any]:
        """The run in a few figures, ready for people: label -> text."""
        loss, last = self._loss, self._last
        if last is None:
            return {"logged": "nothing yet"}
        rows: dict[str, Any] = {
            "time": console.duration(last.seconds),
            "samples": last.samples,
        }
        if loss.first is not None and loss.last is not None:
            change = (loss.last - loss.first) / abs(loss.first) if loss.first else 0.0
            rows["loss"] = f"{loss.first:.4f} -> {loss.last:.4f} ({change:+.1%})"
            rows["best loss"] = f"{loss.best:.4f} at step {loss.best_step:,}"
            drops = "drop" if loss.num_milestones == 1 else "drops"
            rows["milestones"] = f"{loss.num_milestones} {drops} of {loss.MILESTONE_DROP:.0%} or more"
        if last.seconds:
            rows["mean speed"] = f"{last.step / last.seconds:.1f} stp/s, {last.samples / last.seconds:.0f} smp/s"
        if self._peak_memory_bytes is not None:
            rows["peak memory"] = f"{self._peak_memory_bytes / 2**30:.1f} GB"
        rows["gradients"] = f"{self._grad_norm.num_explosions} explosions, {last.num_skipped_steps} steps skipped"
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: what the figures of later log lines and reports depend on. That of the main rank counts."""
        return {
            "loss": self._loss.state_dict(),
            "grad_norm": self._grad_norm.state_dict(),
            "learning_rate": self._learning_rate.state_dict(),
            "time": self._time.state_dict(),
            "slow_parts": sorted(self._slow_parts),
            "last": dataclasses.asdict(self._last) if self._last else None,
            "validation": dataclasses.asdict(self._validation) if self._validation else None,
            "benchmarks": [dataclasses.asdict(record) for record in self._benchmarks.values()],
            "peak_memory_bytes": self._peak_memory_bytes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loss.load_state_dict(state["loss"])
        self._grad_norm.load_state_dict(state["grad_norm"])
        self._last = StepRecord.from_dict(state["last"]) if state["last"] else None
        self._peak_memory_bytes = state["peak_memory_bytes"]
        if "time" not in state:  # a checkpoint of before there were health reports
            return
        self._learning_rate.load_state_dict(state["learning_rate"])
        self._time.load_state_dict(state["time"])
        self._slow_parts = set(state["slow_parts"])
        self._validation = ValidationRecord(**state["validation"]) if state["validation"] else None
        self._benchmarks = {values["tier"]: BenchmarkRecord(**values) for values in state["benchmarks"]}

    def _is_report_due(self, step: int) -> bool:
        """Has a multiple of `health_steps` been passed since the newest log line?"""
        every = self.config.health_steps
        return bool(every) and step // every > self._last_step // every

    def _report(self, record: StepRecord) -> None:
        health = Health(
            record=record,
            total_steps=self.total_steps,
            loss=self._loss,
            grad_norm=self._grad_norm,
            learning_rate=self._learning_rate,
            seconds_by_part=self._time.seconds_by_part,
            validation=self._validation,
            benchmarks=self._benchmarks,
        )
        sections = report(health)
        logger.info(console.box(sections))
        self._write_event("health", "info", headline(health), record.step, {"report": sections})
        self._time.reset()

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

    @property
    def _last_step(self) -> int:
        return self._last.step if self._last else 0

    def _write_event(self, kind: str, level: str, sentence: str, step: int | None, fields: Mapping[str, Any]) -> None:
        assert kind != "step", "records of this kind are logging steps"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        step = self._last_step if step is None else step
        self._write({"kind": kind, "level": level, "sentence": sentence, "step": step, "time": now, **fields})

    def _track(self, step: int, values: Mapping[str, float]) -> None:
        # Of a step between two log lines: FLOPs grow by about as much a step.
        flops = self._last.flops * step / self._last.step if self._last else 0.0
        for tracker in list(self._trackers):
            with self._tracking(tracker.name):
                tracker.scalars(step, flops, values)

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file:
            with self._lasting(self._file.path.name):
                self._file.append(record)

    @contextmanager
    def _lasting(self, output: str) -> Iterator[None]:
        """Where the disk refuses, say so once an output and let the run go on."""
        try:
            yield
        except OSError as error:
            if output not in self._broken:
                self._broken.add(output)
                logger.warning(f"{output} cannot be written ({error}); the run goes on without it")

    @contextmanager
    def _tracking(self, name: str) -> Iterator[None]:
        """Where a tracker fails, say so and let the run go on without it."""
        try:
            yield
        except Exception as error:  # other people's code, networks and servers: whatever it is, the run outlives it
            self._trackers = [tracker for tracker in self._trackers if tracker.name != name]
            reason = " ".join(str(error).split()) or type(error).__name__
            self.warn("tracker", f"{name} cannot be written ({reason}); the run goes on without it")
