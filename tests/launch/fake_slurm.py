"""A SLURM of one machine: sbatch, srun and scontrol, as far as our batch jobs use them. What srun starts is real.

`install(folder)` puts the programs there; the folder is then to stand on the PATH.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

JOB = "4242"
PREEMPT = "FAKE_SLURM_PREEMPT"
"""Variable: a file; when it has something in it, srun's first tasks get the signal that the job asks for."""


def install(folder: Path) -> None:
    for name in ("sbatch", "srun", "scontrol"):
        program = folder / name
        program.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, run_name={name!r})\n")
        program.chmod(0o755)


def sbatch(script: str) -> int:
    """Runs the job at once, and again as long as it asks for that."""
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", Path(script).read_text(), flags=re.M))
    requeued = Path(script).with_name("requeued")
    code, restarts = 0, 0
    indices = _indices(asked.get("array", ""))
    for index in indices:
        while True:
            environment = {
                **os.environ,
                "SLURM_JOB_ID": JOB,
                "SLURM_JOB_NODELIST": "here",
                "SLURM_RESTART_COUNT": str(restarts),
                "FAKE_SLURM_TASKS": str(int(asked["nodes"]) * int(asked["ntasks-per-node"])),
                "FAKE_SLURM_SIGNAL": asked.get("signal", ""),
                "FAKE_SLURM_REQUEUED": str(requeued),
                **({} if index is None else {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_JOB_ID": JOB}),
            }
            code = max(code, subprocess.run(["bash", script], env=environment).returncode)
            if not requeued.exists():
                break
            requeued.unlink()
            code, restarts = 0, restarts + 1
    return code


def srun(*arguments: str) -> int:
    command = [
        one for place, one in enumerate(arguments) if not all(x.startswith("--") for x in arguments[: place + 1])
    ]
    count = int(os.environ["FAKE_SLURM_TASKS"])
    cores = [one.partition("=")[2] for one in arguments if one.startswith("--cpus-per-task=")]
    tasks = [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
                "SLURM_STEP_NUM_TASKS": str(count),
                "SLURM_STEP_NODELIST": "here",
                "FAKE_SLURM_CORES": cores[0] if cores else "1",
            },
        )
        for rank in range(count)
    ]
    mark = Path(os.environ.get(PREEMPT, "none"))
    is_told = os.environ["SLURM_RESTART_COUNT"] != "0"
    while any(task.poll() is None for task in tasks):
        if not is_told and mark.is_file() and mark.read_text().count("\n") >= 3:
            is_told = True
            name = os.environ["FAKE_SLURM_SIGNAL"].partition("@")[0]
            for task in tasks:
                task.send_signal(getattr(signal, f"SIG{name}"))
        time.sleep(0.01)
    return max(task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks)


def scontrol(*arguments: str) -> int:
    match arguments:
        case ("show", "hostnames", _):
            print("127.0.0.1")
        case ("requeue", job):
            index = os.environ.get("SLURM_ARRAY_TASK_ID")
            assert job == (JOB if index is None else f"{JOB}_{index}"), "JOB alone is the whole array"
            Path(os.environ["FAKE_SLURM_REQUEUED"]).touch()
        case _:
            return 1
    return 0


def _indices(array: str) -> list[int | None]:
    if not array:
        return [None]
    first, _, last = array.partition("%")[0].partition("-")
    return list(range(int(first), int(last or first) + 1))


if __name__ in ("sbatch", "srun", "scontrol"):
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[__name__](*sys.argv[1:]))
