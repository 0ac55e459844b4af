"""A list of runs, each trained in a process of its own: what is finished stays, what was begun goes on, and how every
one ended is a line of runs.jsonl.

    study = Path("runs/rates")
    runs = [plan("quickstart", [f"optimizer.learning_rate={rate}"], study / f"rate-{rate}") for rate in (1e-3, 3e-3)]
    with StopRequest() as stop:
        outcomes = execute(runs, study, stop)
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from foreloom.checkpoint.locate import find_model_folder
from foreloom.checkpoint.manifest import Manifest
from foreloom.config.loader import Recipe
from foreloom.config.shipped import find_recipe
from foreloom.data.loader import BatchLoader
from foreloom.files import strict_json
from foreloom.models import registry
from foreloom.monitoring.console import duration
from foreloom.monitoring.metrics_file import FILE_NAME as METRICS_NAME
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.monitoring.progress import Progress
from foreloom.run import RECIPE_NAME, config_hash, load
from foreloom.training.signals import StopRequest

RECORD_NAME = "runs.jsonl"
"""In the folder of a study: an `Outcome` a line, appended; of a run that has several, the newest counts."""
NUM_LAST_LINES = 12
"""Of a failed process, kept."""
POLL_SECONDS = 0.05
TELL_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """A training to be made: a recipe, settings on top, and the folder it leaves, whose name is the run's."""

    recipe: Recipe
    """With the overrides."""
    overrides: tuple[str, ...]
    folder: Path
    num_processes: int = 1
    """That train it together, a device each."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.folder.with_name(f"{self.name}.log")

    @property
    def command(self) -> list[str]:
        """What trains it; with `--resume` behind, what goes on with it."""
        start = [sys.executable, "-m"]
        if self.num_processes > 1:
            start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.num_processes}", "-m"]
        return [*start, "foreloom", "train", str(self.recipe.path), *self.overrides, "--out", str(self.folder)]


@dataclass(frozen=True)
class Size:
    """What a recipe costs, as its trainer would count it."""

    num_steps: int
    num_parameters: int
    flops_per_step: float
    """Forward and backward of `training.batch_size` rows."""
    loss_units: tuple[Any, ...] = ()
    """See `ModelFamily.loss_units`."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended and, where it has finished, its numbers. All of its sessions count."""

    name: str
    recipe: str
    overrides: list[str]
    folder: str
    status: Literal["finished", "stopped", "failed"]
    exit_code: int = 0
    """-n where signal n killed the process."""
    error: str = ""
    """Of a failed one: a sentence, and the last lines it printed."""
    seconds: float | None = None
    """From the start of the process to its end; None, as `peak_bytes`, where another program trained it."""
    peak_bytes: int | None = None
    """The most memory the process held: resident pages, as the kernel counts them."""
    device_peak_bytes: int | None = None
    num_parameters: int | None = None
    num_steps: int | None = None
    num_rows: int | None = None
    flops: float | None = None
    training_seconds: float | None = None
    """Of the main rank, evaluation and checkpoints left out."""
    training_loss: float | None = None
    """At the last log line; None, as the others, where it was not finite."""
    loss: float | None = None
    """Held-out, of the weights in hf/, without what a router adds to it where the family tells the two apart."""
    curve: list[list[Any]] = field(default_factory=list)
    """[step, held-out loss], by step."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What the family says of the held-out windows at the weights in hf/."""


def plan(recipe: str | Path, overrides: Sequence[str], folder: Path, *, num_processes: int = 1) -> Run:
    """The run of a recipe's file, or a shipped recipe's name. RecipeError where it does not allow the overrides."""
    path = find_recipe(recipe).resolve()
    return Run(load(path, overrides), tuple(overrides), folder, num_processes)


def size_of(recipe: Recipe) -> Size:
    """Before anything is trained: opens the data, and builds the model without memory for its values. ValueError, as
    the trainer would raise it, where a model cannot be built."""
    data, training = recipe.sections["data"], recipe.sections["training"]
    family, model = registry.get(recipe.sections["model"].family), model_of(recipe)
    return Size(
        num_steps=training.in_steps(_loader(recipe).num_epoch_batches).num_steps,
        num_parameters=sum(p.numel() for p in model.parameters()),
        flops_per_step=training.batch_size * family.flops_per_row(model, data),
        loss_units=family.loss_units(model),
    )


def model_of(recipe: Recipe) -> nn.Module:
    """The recipe's model without memory for its values."""
    config = recipe.sections["model"]
    if config.pretrained is not None:
        config = dataclasses.replace(config, pretrained=str(find_model_folder(config.pretrained)))
    with torch.device("meta"):
        return registry.get(config.family).build(config, recipe.sections["data"])


def state_of(run: Run) -> Literal["absent", "begun", "finished"]:
    """How far an earlier call came with this run. ValueError where its folder holds something else."""
    written = run.folder / RECIPE_NAME
    if not written.is_file():
        return "absent"
    of_folder = load(written, need_data=False)
    if config_hash(of_folder) != config_hash(run.recipe):
        raise ValueError(
            f"{run.folder} holds a run of other settings; give another --out (--results of a study), or delete the "
            "folder to train it anew."
        )
    final = run.folder / "checkpoints" / "final"
    if not final.exists():
        return "begun" if (run.folder / METRICS_NAME).is_file() else "absent"
    if Manifest.read(final).fingerprint != _loader(run.recipe).state_dict()["fingerprint"]:
        raise ValueError(
            f"{run.folder} holds a run on data that have changed since; give another --out, or delete the folder."
        )
    return "finished"


def execute(runs: Sequence[Run], study: Path, stop: StopRequest) -> list[Outcome]:
    """Train the runs in turn, and tell how it goes on stderr; the outcomes of those that ended, failed ones too.

    Finished runs are taken as they are, begun ones are resumed. A stop asked for is passed on to the process, and is
    the end of the list; the same call goes on from there. ValueError, before anything is trained, where the folder of a
    run holds something else.
    """
    for run in runs:
        state_of(run)
    study.mkdir(parents=True, exist_ok=True)
    known, outcomes = read_outcomes(study), []
    for number, run in enumerate(runs, start=1):
        training = run.recipe.sections["training"]
        length = f"{training.epochs:g} epochs" if training.steps is None else f"{training.steps:,} steps"
        say(f"[{number}/{len(runs)}] {run.name}: {length}")
        earlier = known.get(run.name)
        outcome, was_there = advance(run, stop, earlier)
        if outcome is not earlier:
            with (study / RECORD_NAME).open("a", encoding="utf-8") as file:
                file.write(json.dumps(strict_json(dataclasses.asdict(outcome))) + "\n")
        if stop.signal_number:
            say("stopped; the same command goes on from here")
            break
        outcomes.append(outcome)
        took = "was there already" if was_there else f"finished after {duration(outcome.seconds or 0)}"
        say(outcome.error or f"  {took}")
    return outcomes


def advance(run: Run, stop: StopRequest, earlier: Outcome | None) -> tuple[Outcome, bool]:
    """Train a run to its end, from where it is; its outcome, and whether it had finished before. `earlier` is how it
    ended the time before, where that is known."""
    state = state_of(run)
    if state == "finished":
        return _found(run, earlier), True
    return train(run, stop, earlier, resume=state == "begun"), False


def train(run: Run, stop: StopRequest, earlier: Outcome | None = None, *, resume: bool = False) -> Outcome:
    """Train to the end; with `resume`, go on with what ended as `earlier`, where that is known."""
    with Progress(run.name) as progress:
        tell = partial(_tell_steps, run, progress)
        ending = run_process([*run.command, *(["--resume"] if resume else [])], run.log, stop, tell)
    if resume and earlier and earlier.status != "finished":
        ending["seconds"] += earlier.seconds or 0
        ending["peak_bytes"] = max(ending["peak_bytes"] or 0, earlier.peak_bytes or 0) or None
    if ending["exit_code"] == 0:
        return Outcome(*_named(run), "finished", num_parameters=_num_parameters(run), **ending, **measure(run))
    if stop.signal_number:
        return Outcome(*_named(run), "stopped", **ending)
    return Outcome(*_named(run), "failed", error=_failure(run, ending["exit_code"]), **ending)


def _tell_steps(run: Run, progress: Progress) -> None:
    """By the newest line of the run's metrics."""
    num_steps = run.recipe.sections["training"].steps
    file = run.folder / METRICS_NAME
    if num_steps and file.is_file() and (steps := read_metrics(run.folder).steps):
        progress.update(steps[-1]["step"] / num_steps, f"step {steps[-1]['step']:,} of {num_steps:,}")


def run_process(
    command: Sequence[str], log: Path, stop: StopRequest, tell: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Wait for a program that prints to `log`; its `exit_code`, `seconds` and `peak_bytes`, see `Outcome`. `tell()` is
    called every few seconds meanwhile.

    The kernel's high-water mark of resident memory is read while the process lives. What waiting for it tells
    (`ru_maxrss`) would not do: on Linux it begins with the peak of the process that starts it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began, peak_bytes, is_told = time.perf_counter(), 0, False
    next_word = began + TELL_SECONDS
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            peak_bytes = max(peak_bytes, _resident_peak(process.pid))
            if stop.signal_number and not is_told:
                is_told = True
                process.terminate()
            if time.perf_counter() > next_word:
                next_word += TELL_SECONDS
                tell()
            time.sleep(POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
    finally:
        process.kill()  # a second Ctrl-C ends this loop at once, and no process outlives it
        process.wait()
    if sys.platform == "darwin":
        peak_bytes = ended[2].ru_maxrss
    seconds = time.perf_counter() - began
    return {"exit_code": process.returncode, "seconds": seconds, "peak_bytes": peak_bytes or None}


def measure(run: Run) -> dict[str, Any]:
    """What a finished run's folder says of it: the fields of `Outcome` from `device_peak_bytes` on, but parameters."""
    newest_first = sorted(run.folder.glob("checkpoints/step-*[0-9]"), reverse=True)
    metrics, manifest = read_metrics(run.folder), next(one for one in map(Manifest.read, newest_first) if one.final)
    events = {event["step"]: event for event in metrics.events if event["kind"] == "validation"}  # the newer of two
    curve = {step: _forecast_loss(events[step]) for step in sorted(events)}
    exported = manifest.step if manifest.export_step is None else manifest.export_step
    parts = [item for record in metrics.steps for item in record["seconds_by_part"].items()]
    return {
        "device_peak_bytes": max((record["memory_bytes"] or 0 for record in metrics.steps), default=0) or None,
        "num_steps": manifest.step,
        "num_rows": manifest.num_rows,
        "flops": manifest.flops,
        "training_seconds": sum(seconds for part, seconds in parts if part not in ("evaluation", "checkpoint")),
        "training_loss": metrics.steps[-1]["loss"] if metrics.steps else None,
        "loss": curve.get(exported),
        "curve": [[step, loss] for step, loss in curve.items()],
        "figures": events[exported]["figures"] if exported in events else {},
    }


def read_outcomes(study: Path) -> dict[str, Outcome]:
    """The newest outcome of each run, by name; nothing where no run has ended. ValueError names a damaged line."""
    path = study / RECORD_NAME
    found = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            outcome = Outcome(**json.loads(line))
        except (ValueError, TypeError):
            raise ValueError(f"{path}:{number}: not an outcome of a run; delete the line to read the rest") from None
        found[outcome.name] = outcome
    return found


def say(sentence: str) -> None:
    """How it goes; stdout is for tables."""
    print(sentence, file=sys.stderr, flush=True)


def _found(run: Run, earlier: Outcome | None) -> Outcome:
    """The outcome of a finished run: the one that is known, unless another program has trained it since."""
    measured = measure(run)
    if earlier and earlier.status == "finished" and all(getattr(earlier, key) == measured[key] for key in measured):
        return earlier
    return Outcome(*_named(run), "finished", num_parameters=_num_parameters(run), **measured)


def _named(run: Run) -> tuple[str, str, list[str], str]:
    return run.name, str(run.recipe.path), list(run.overrides), str(run.folder)


def _num_parameters(run: Run) -> int:
    return size_of(run.recipe).num_parameters


def _failure(run: Run, code: int) -> str:
    lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LAST_LINES:]
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return "\n".join([f"{run.name} failed ({ended}); the end of {run.log}:", *lines])


def _forecast_loss(event: dict[str, Any]) -> float | None:
    """JSON has null for what is not finite."""
    return (event.get("figures") or {}).get("forecast_loss", event["loss"])


def _resident_peak(pid: int) -> int:
    """Bytes; 0 where the process has just ended, or the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _loader(recipe: Recipe) -> BatchLoader:
    training = recipe.sections["training"]
    return BatchLoader(
        recipe.sections["data"].open(training.seed, batch_size=training.batch_size), batch_size=training.batch_size
    )
