"""A study on a SLURM cluster: one array job whose tasks share its runs out, and a job for the analysis behind it."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom.lab.labels import SWEEP_SUFFIX
from foreloom.lab.study.resolve import Planned
from foreloom.launch.profile import Profile
from foreloom.launch.slurm import SlurmJob, directives

LOGS = "slurm"
"""In the folder of results."""


@dataclass(frozen=True)
class Submission:
    """Two jobs as sbatch takes them."""

    array: str
    analysis: str
    warnings: tuple[str, ...] = ()


def submission(
    study: str,
    common: Sequence[str],
    planned: Sequence[Planned],
    results: Path,
    profile: Profile,
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
    may, job = profile.studies, profile.slurm
    gpus = may.gpus_per_process * num_processes
    at_once = min(num_at_once or max(may.gpus_at_once // max(gpus, 1), 1), tasks)
    if at_once * gpus > (most := may.gpus_limit or may.gpus_at_once):
        warnings.append(f"{at_once} tasks at a time of {gpus} GPUs are {at_once * gpus}, above {most}.")
    name = f"foreloom-{re.sub(r'[^A-Za-z0-9_.-]', '-', Path(study).name.removesuffix('.yaml'))}"
    foreloom = job.command or f"{shlex.quote(sys.executable)} -m foreloom"
    place = ["--results", str(results.absolute())]
    run = f"{foreloom} {shlex.join(['lab', 'run', study, *common, *place])}"
    array = dataclasses.replace(
        job, nodes=1, gpus=gpus, processes=0, cpus=job.cpus * num_processes, array=f"0-{tasks - 1}%{at_once}"
    )
    head = directives(array, name, str(results.absolute() / LOGS / "%A_%a.log"), num_tasks=1, is_shell_told=True)
    environment = {**profile.environment, **job.environment}
    setup = [*job.setup, *(f"export {key}={shlex.quote(value)}" for key, value in environment.items())]
    body = _ARRAY.format(directory=shlex.quote(str(Path.cwd())), setup="\n".join(setup), run=run, tasks=tasks)
    folders = dict.fromkeys(one.folder for one in planned)
    steps = [f"{foreloom} {shlex.join(['lab', 'status', study, *common, *place])}"]
    for folder in folders:
        verb = "lr-fit" if folder.endswith(SWEEP_SUFFIX) else "fit"
        steps.append(f"{foreloom} {shlex.join(['lab', verb, str(results.absolute() / folder)])}")
    light = SlurmJob(partition=job.partition, account=job.account, qos=job.qos, save_seconds=0)
    log = str(results.absolute() / LOGS / "analysis_%j.log")
    analysis_head = directives(light, f"{name}-analysis", log, num_tasks=1)
    analysis = _ANALYSIS.format(directory=shlex.quote(str(Path.cwd())), setup="\n".join(setup), steps="\n".join(steps))
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
    return "\n".join(["#!/bin/bash", *options, "", body])


_ARRAY = """\
child=
requeue=0
asked=0
stop() {{ asked=1; [ -z "$child" ] || kill -TERM "$child"; }}
# SLURM sends USR1 before the time is up: the run saves, and the task begins again where it was. TERM is scancel's.
# Either may come before the run has begun.
trap 'requeue=1; stop' USR1
trap stop TERM
cd {directory} || exit 2
{setup}
{run} --index "$SLURM_ARRAY_TASK_ID" --of {tasks} &
child=$!
[ "$asked" -eq 0 ] || kill -TERM "$child"
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
