"""SLURM: the text of a batch job that starts a verb's ranks, goes on after it was stopped, and runs the code as it was
when it was handed in."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from foreloom.config.section import section
from foreloom.launch.hosts import DEFAULT_PORT

SAVE_AND_LEAVE = 138
"""The exit code of a run that SIGUSR1 told to save and leave: 128 + 10."""


TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
"""Minutes, minutes:seconds, hours:minutes:seconds, days-hours, and those with minutes and seconds."""


@section
class SlurmJob:
    """What a job asks SLURM for. What a site wants stands in a profile, none of it in code."""

    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each machine, a process each; 0: none, and `processes`."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Processes on each machine; 0: one for each GPU, or one."""
    gpu_type: str = ""
    """As the site names it (a100); empty: any."""
    cpus: Annotated[int, Field(ge=0)] = 0
    """Cores of each process; 0: what SLURM gives."""
    memory: str = ""
    """Of each machine (64G); empty: what SLURM gives."""
    time: str = ""
    """The most it may take, as SLURM writes it: 24:00:00, 2-00:00:00; empty: what SLURM gives."""
    partition: str = ""
    """Empty: the site's default."""
    account: str = ""
    """Whose budget it is on; empty: the user's default."""
    qos: str = ""
    """Quality of service; empty: the site's default."""
    constraint: str = ""
    """Features that machines must have; empty: none."""
    array: str = ""
    """0-9%4: ten jobs of this, four at a time; empty: one."""
    save_seconds: Annotated[int, Field(ge=0)] = 180
    """So long before its time is up, or when it is preempted, a run is told to save and leave; SLURM then puts it into
    the queue again. 0: never."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the verb: module load cuda, source .venv/bin/activate."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Variables for all ranks (NCCL_SOCKET_IFNAME: eth0)."""
    directives: tuple[str, ...] = ()
    """More of what #SBATCH understands: --exclusive, --reservation=x."""
    command: str = ""
    """What starts foreloom there; empty: the Python that submits."""

    @property
    def num_tasks(self) -> int:
        """Processes on each machine."""
        return self.processes or self.gpus or 1

    def __post_init__(self) -> None:
        if self.gpus and self.processes not in (0, self.gpus):
            raise ValueError(
                f"{self.processes} processes share {self.gpus} gpus of a machine; each takes one: leave processes out"
            )
        if self.time and not TIME.fullmatch(self.time):
            raise ValueError(f"time: {self.time!r} is none that SLURM reads; say minutes (90), 24:00:00 or 2-00:00:00")


def directives(job: SlurmJob, name: str, log: str, *, num_tasks: int, is_shell_told: bool = False) -> list[str]:
    """The #SBATCH lines of a job of `num_tasks` processes on each machine; `log` is a file name as SLURM writes it, %j
    for the job's number. Who is told to save, the shell that runs the text, or the processes that srun starts?"""
    given = {
        "job-name": name,
        "nodes": str(job.nodes),
        "ntasks-per-node": str(num_tasks),
        "gres": f"gpu:{job.gpu_type}:{job.gpus}" if job.gpu_type else f"gpu:{job.gpus}" if job.gpus else "",
        "cpus-per-task": str(job.cpus or ""),
        "mem": job.memory,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "constraint": job.constraint,
        "array": job.array,
        "output": log,
    }
    lines = [f"--{key}={shlex.quote(value)}" for key, value in given.items() if value]  # sbatch knows a shell's quotes
    if job.save_seconds:
        signal = f"{'B:' if is_shell_told else ''}USR1@{job.save_seconds}"
        lines += ["--requeue", "--open-mode=append", f"--signal={signal}"]
    return [f"#SBATCH {line}" for line in (*lines, *job.directives)]


def batch_script(
    verb: Sequence[str],
    job: SlurmJob,
    *,
    name: str,
    log: str,
    folder: Path,
    code: Path | None = None,
    port: int = DEFAULT_PORT,
    python: str = sys.executable,
) -> str:
    """The text for sbatch: one srun starts all ranks, which SLURM numbers. `folder`: where the verb is run. `code`: a
    folder whose foreloom is run instead of the installed one. What `job.environment` says comes last: it may name
    another address, port or number of threads than those that are found."""
    command = f"{job.command or shlex.join([python, '-m', 'foreloom'])} {shlex.join(verb)}"
    exports = dict(job.environment)
    if code:
        exports["PYTHONPATH"] = os.pathsep.join([str(code), *filter(None, [exports.get("PYTHONPATH")])])
    lines = [
        "#!/usr/bin/env bash",
        *directives(job, name, log, num_tasks=job.num_tasks),
        "",
        f"cd {shlex.quote(str(folder))} || exit 1",
    ]
    lines += [
        *job.setup,
        "set -u",  # not before: what activates an environment reads variables that are not set (conda#8186)
        'MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
        f"MASTER_PORT=$(({port} + SLURM_JOB_ID % 1000))",
        'OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"',
        "export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS",
        *(f"export {key}={shlex.quote(value)}" for key, value in exports.items()),
    ]
    # A rank that leaves a moment before the others must not have them killed. From 22.05 on, srun gives each one core
    # unless it is told of them itself (pytorch-lightning#18650).
    cores = '${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"}'
    lines += [f"srun --kill-on-bad-exit=0 {cores} {command}", "code=$?"]
    if job.save_seconds:
        # The last task of an array has the number of the whole, which would all begin again (pytorch-lightning#15022).
        own = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if job.array else "$SLURM_JOB_ID"
        lines.append(f'if [ "$code" -eq {SAVE_AND_LEAVE} ]; then scontrol requeue "{own}"; fi')
    return "\n".join([*lines, 'exit "$code"', ""])
