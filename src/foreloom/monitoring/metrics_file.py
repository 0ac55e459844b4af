"""metrics.jsonl, the truth about a run: one JSON object a line, appended, readable while the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

from foreloom.files import strict_json
from foreloom.monitoring.record import StepRecord

FILE_NAME = "metrics.jsonl"
_OF_A_STEP = [one.name for one in fields(StepRecord) if one.default is MISSING and one.default_factory is MISSING]


class OtherMetricsError(ValueError):
    """Metrics that another version of foreloom wrote."""

    def __init__(self, run_dir: str | Path, what: str) -> None:
        super().__init__(run_dir, what)

    def __str__(self) -> str:
        run_dir, what = self.args
        return (
            f"{Path(run_dir) / FILE_NAME} was written by another version of foreloom: {what}. Use the version that "
            "trained the run, or train it again"
        )


class MetricsFile:
    """Appends records to the metrics.jsonl of a run folder. Opening it drops the broken last line of a killed run."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FILE_NAME
        size_bytes = self.path.stat().st_size if self.path.exists() else 0
        if size_bytes:
            with self.path.open("rb") as file:
                content = file.read(size_bytes)
            if not content.endswith(b"\n"):
                os.truncate(self.path, content.rfind(b"\n") + 1)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line whole or not at all; non-finite numbers become null.

        Raises OSError (a full disk, a folder that went away) and leaves the earlier lines intact.
        """
        line = json.dumps(strict_json(record), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        size_bytes = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(line)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, size_bytes)
            raise


class Metrics(NamedTuple):
    """What metrics.jsonl says, as plain dicts in the order of the run."""

    steps: list[dict[str, Any]]
    """The logging steps: the fields of `StepRecord` with `ema` and `best`, steps increasing."""
    events: list[dict[str, Any]]
    """Everything else, each with `kind`, `level` (info, warning), `sentence`, `step` and `time`."""


def read_metrics(run_dir: str | Path) -> Metrics:
    """Read a run's metrics, also while it is being written.

    What an earlier session logged and said after the step that a later one went on from is left out. A broken last line
    (the run was killed, or is writing it now) is skipped. Raises ValueError naming file and line where another one is
    not a JSON object, OtherMetricsError where a step lacks a figure that every step has, FileNotFoundError where the
    run has logged nothing.
    """
    steps: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for record in read_records(run_dir):
        if record["kind"] == "start":
            steps = [step for step in steps if step["step"] <= record["from_step"]]
            events = [event for event in events if event["step"] <= record["from_step"]]
        (steps if record["kind"] == "step" else events).append(record)
    for step in steps:
        lacking = [name for name in _OF_A_STEP if name not in step]
        if lacking:
            raise OtherMetricsError(run_dir, f"step {step.get('step', 0):,} has no {lacking[0]!r}")
    return Metrics(steps, events)


def read_records(run_dir: str | Path) -> Iterator[dict[str, Any]]:
    """Every record in the order written, with what later sessions overwrote; raises as `read_metrics` does."""
    path = Path(run_dir) / FILE_NAME
    *lines, unfinished = path.read_bytes().split(b"\n")
    del unfinished  # empty where the last line is whole
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "kind" not in record:
            raise ValueError(f"{path}:{number}: not a record of a run; delete the line to read the rest")
        yield record
