"""The trainings of an A/B test, each a process of its own, so that its memory and its failure are its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foreloom import run
from foreloom.checkpoint.manifest import Manifest
from foreloom.config.loader import Recipe
from foreloom.data.loader import BatchLoader
from foreloom.files import write_text
from foreloom.monitoring.metrics_file import FILE_NAME as METRICS_NAME
from foreloom.report.ab.plan import Training
from foreloom.training.signals import StopRequest

PROCESS_NAME = "process.json"
"""Beside metrics.jsonl: what the operating system said of the process."""
NUM_LAST_LINES = 12
"""Of a failed process, shown."""
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Job:
    """A training with what it takes to start it."""

    training: Training
    recipe: Recipe
    """With its overrides."""
    command: list[str]
    folder: Path

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.folder.with_name(f"{self.folder.name}.log")


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    job: Job
    exit_code: int
    """0; -n where signal n killed the process."""
    was_there: bool = False
    """Finished by an earlier call."""

    @property
    def failure(self) -> str | None:
        """The last lines the process printed, under a sentence; None where it has not failed."""
        if not self.exit_code:
            return None
        lines = self.job.log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LAST_LINES:]
        ended = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return "\n".join([f"{self.job.training.name} failed ({ended}); the end of {self.job.log}:", *lines])


def job_of(training: Training, path: Path, overrides: Sequence[str], out: Path) -> Job:
    """RecipeError where the recipe does not allow the overrides."""
    folder = out / training.name
    command = [sys.executable, "-m", "foreloom", "train", str(path), *overrides, "--out", str(folder)]
    return Job(training, run.load(path, overrides), command, folder)


def state_of(job: Job) -> Literal["absent", "begun", "finished"]:
    """How far an earlier call came with this training. ValueError where its folder holds something else."""
    written = job.folder / run.RECIPE_NAME
    if not written.is_file():
        return "absent"
    if run.config_hash(run.load(written, need_data=False)) != run.config_hash(job.recipe):
        raise ValueError(
            f"{job.folder} holds a run of other settings; give another --out, or delete the folder to train it anew."
        )
    final = job.folder / "checkpoints" / "final"
    if not final.exists():
        return "begun" if (job.folder / METRICS_NAME).is_file() else "absent"
    training = job.recipe.sections["training"]
    loader = BatchLoader(job.recipe.sections["data"].open(training.seed), batch_size=training.batch_size)
    if Manifest.read(final).fingerprint != loader.state_dict()["fingerprint"]:
        raise ValueError(
            f"{job.folder} holds a run on data that have changed since; give another --out, or delete the folder."
        )
    return "finished"


def train(job: Job, stop: StopRequest) -> Outcome:
    """Train to the end, or go on with what an earlier call has begun. A stop asked for is passed on to the process.

    The peak of resident memory is the kernel's (`ru_maxrss`). It starts from what this process has at its peak, which
    the new one exceeds as long as this one holds no model; so models are sized and scored elsewhere, or at the end.
    """
    state = state_of(job)
    if state == "finished":
        return Outcome(job, 0, was_there=True)
    resume = ["--resume"] if state == "begun" else []
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("wb") as log:
        process = subprocess.Popen([*job.command, *resume], stdout=log, stderr=subprocess.STDOUT)
    is_told = False
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if stop.signal_number and not is_told:
            is_told = True
            process.send_signal(signal.SIGTERM)
        time.sleep(POLL_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen would wait for a process that is gone
    in_bytes = 1 if sys.platform == "darwin" else 1024
    peak_bytes = max(usage.ru_maxrss * in_bytes, peak_of(job.folder) or 0)
    if job.folder.is_dir():
        write_text(job.folder / PROCESS_NAME, json.dumps({"peak_bytes": peak_bytes}))
    return Outcome(job, process.returncode)


def peak_of(folder: Path) -> int | None:
    """Most bytes of memory that a session of this run has held; None where another program started it."""
    path = folder / PROCESS_NAME
    return json.loads(path.read_text(encoding="utf-8"))["peak_bytes"] if path.is_file() else None
