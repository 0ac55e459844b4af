"""A study on a SLURM cluster: one array job whose tasks share its runs out, and a job for the analysis behind it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from foreloom.config.loader import validate
from foreloom.config.located import Located, RecipeError, read_yaml
from foreloom.config.section import section
from foreloom.lab.study.experiments import SWEEP_SUFFIX
from foreloom.lab.study.resolve import Planned

_Positive = Annotated[int, Field(ge=1)]
LOGS = "slurm"
"""In the folder of results."""


@section
class SlurmProfile:
    """A cluster and what a task of it gets. Everything that is unset is left to the cluster."""

    gpus_at_once: _Positive = 8
    """Of all tasks that run at a time, together."""
    gpus_limit: _Positive | None = None
    """The most that an account may hold; more asked for is warned of."""
    gpus_per_process: Annotated[int, Field(ge=0)] = 1
    """0: none, a CPU cluster."""
    cpus_per_process: _Positive | None = None
    """Cores for each training process of a task."""
    mem: str | None = None
    """Of a task: 32G."""
    time: str | None = None
    """Longest duration of a task, after which it is requeued and goes on: 24:00:00."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    options: tuple[str, ...] = ()
    """More of sbatch's: --exclusive, --mail-type=FAIL."""
    setup: tuple[str, ...] = ()
    """Shell lines before foreloom is started: module load cuda, source env/bin/activate."""
    command: str | None = None
    """What starts foreloom; unset: the Python that submits."""
    stop_seconds: _Positive = 180
    """Before the end of its time a task is told to stop: so long a step, a validation and a checkpoint may take."""


@dataclass(frozen=True)
class Submission:
    """Two jobs as sbatch takes them."""

    array: str
    analysis: str
    warnings: tuple[str, ...] = ()


def read_profile(path: Path | None) -> SlurmProfile:
    """A YAML file of `SlurmProfile`'s settings, or what they are by default. RecipeError tells all that is wrong."""
    located = read_yaml(path) if path else Located({})
    profile, problems = validate(SlurmProfile, located.values or {}, located, "")
    if problems:
        raise RecipeError(problems)
    return profile


def submission(
    study: str,
    common: Sequence[str],
    planned: Sequence[Planned],
    results: Path,
    profile: SlurmProfile,
    *,
    num_tasks: int | None = None,
    num_at_once: int | None = None,
) -> Submission:
    """The jobs of a study: `num_tasks` tasks (default: one a run) of which `num_at_once` run at a time (default: as
    many as `gpus_at_once` allow). Every task trains its part of the runs one after another.

    ValueError where runs need different numbers of processes, for which no one task is right.
    """
    processes = {one.num_processes for one in planned}
    if len(processes) > 1:
        raise ValueError(
            f"some runs are trained by {min(processes)} and some by {max(processes)} processes, and the tasks of an "
            "array are all alike: submit them as two studies."
        )
    (num_processes,) = processes
    tasks = num_tasks or len(planned)
    warnings = []
    if tasks > len(planned):
        warnings.append(f"{tasks} tasks for {len(planned)} runs: {tasks - len(planned)} have nothing to do.")
    gpus = profile.gpus_per_process * num_processes
    at_once = min(num_at_once or max(profile.gpus_at_once // max(gpus, 1), 1), tasks)
    if profile.gpus_limit and at_once * gpus > profile.gpus_limit:
        warnings.append(f"{at_once} tasks at a time of {gpus} GPUs are {at_once * gpus}, above {profile.gpus_limit}.")
    elif at_once * gpus > profile.gpus_at_once:
        warnings.append(f"{at_once} tasks at a time of {gpus} GPUs are {at_once * gpus}, above {profile.gpus_at_once}.")
    name = f"foreloom-{re.sub(r'[^A-Za-z0-9_.-]', '-', Path(study).name.removesuffix('.yaml'))}"
    foreloom = profile.command or f"{shlex.quote(sys.executable)} -m foreloom"
    place = ["--results", str(results.absolute())]
    run = f"{foreloom} {shlex.join(['lab', 'run', study, *common, *place])}"
    head = [
        f"--job-name={name}",
        f"--array=0-{tasks - 1}%{at_once}",
        *([f"--gres=gpu:{gpus}"] if gpus else []),
        *([f"--cpus-per-task={profile.cpus_per_process * num_processes}"] if profile.cpus_per_process else []),
        *(f"--{key}={value}" for key in ("mem", "time", "partition", "account", "qos", "constraint")
          if (value := getattr(profile, key))),
        f"--output={results.absolute() / LOGS / '%A_%a.log'}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{profile.stop_seconds}",
        *profile.options,
    ]  # fmt: skip
    body = _ARRAY.format(directory=shlex.quote(str(Path.cwd())), setup="\n".join(profile.setup), run=run, tasks=tasks)
    folders = dict.fromkeys(one.folder for one in planned)
    steps = [f"{foreloom} {shlex.join(['lab', 'status', study, *common, *place])}"]
    for folder in folders:
        verb = "lr-fit" if folder.endswith(SWEEP_SUFFIX) else "fit"
        steps.append(f"{foreloom} {shlex.join(['lab', verb, str(results.absolute() / folder)])}")
    analysis_head = [
        f"--job-name={name}-analysis",
        *(f"--{key}={value}" for key in ("partition", "account", "qos") if (value := getattr(profile, key))),
        f"--output={results.absolute() / LOGS / 'analysis_%j.log'}",
    ]
    analysis = _ANALYSIS.format(
        directory=shlex.quote(str(Path.cwd())), setup="\n".join(profile.setup), steps="\n".join(steps)
    )
    return Submission(_script(head, body), _script(analysis_head, analysis), tuple(warnings))


def submit(jobs: Submission, results: Path) -> tuple[str, str]:
    """Hand both to sbatch; their numbers. ValueError in sbatch's own words where it refuses."""
    (results / LOGS).mkdir(parents=True, exist_ok=True)
    array = _sbatch(jobs.array)
    # afterany: a run that failed or diverged is told of, and the others are worth a look.
    return array, _sbatch(jobs.analysis, f"--dependency=afterany:{array}")


def _sbatch(script: str, *options: str) -> str:
    try:
        done = subprocess.run(["sbatch", "--parsable", *options], input=script, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError("there is no sbatch on this machine; --dry-run prints the script for another.") from None
    if done.returncode:
        raise ValueError(f"sbatch refused the job: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]


def _script(options: Sequence[str], body: str) -> str:
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in options), "", body])


_ARRAY = """\
cd {directory} || exit 2
{setup}
{run} --index "$SLURM_ARRAY_TASK_ID" --of {tasks} &
child=$!
requeue=0
# SLURM sends USR1 before the time is up: the run saves, and the task begins again where it was. TERM is scancel's.
trap 'requeue=1; kill -TERM "$child"' USR1
trap 'kill -TERM "$child"' TERM
wait "$child"
code=$?
# A trap ends the wait, not the child.
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
done
if [ "$requeue" -eq 1 ] && [ "$code" -ne 0 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""
_ANALYSIS = """\
cd {directory} || exit 2
{setup}
{steps}
"""
