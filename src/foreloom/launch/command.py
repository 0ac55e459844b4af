"""Commands that start the ranks of a verb: on this machine, on named machines, by Open MPI. Pure functions from a
specification to text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foreloom.launch.hosts import DEFAULT_PORT, Host, Hostfile


@dataclass(frozen=True)
class Command:
    """A program with its arguments, and what its environment has besides."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """For a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*settings, shlex.join(self.arguments)])


def local_command(
    verb: Sequence[str],
    num_processes: int,
    *,
    gpus: Sequence[int | str] = (),
    threads: int = 0,
    max_restarts: int = 0,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Command:
    """`verb` (train chronos2-base ...) on this machine: in one process by itself, in several by torchrun, which finds a
    free port. `gpus`: those that are seen, as CUDA_VISIBLE_DEVICES names them. `threads`: of each process, on the CPU;
    0: torchrun's choice. `max_restarts`: times that torchrun starts all ranks anew after one has failed; a training
    then goes on from its newest checkpoint."""
    environment = {**(environment or {}), **_devices(gpus, threads)}
    if num_processes == 1 and not max_restarts:
        return Command([python, "-m", "foreloom", *verb], environment)
    settings = ["--standalone", f"--nproc-per-node={num_processes}", f"--max-restarts={max_restarts}"]
    return Command([*_torchrun(python), *settings, "-m", "foreloom", *verb], environment)


def node_commands(
    verb: Sequence[str],
    hosts: Sequence[Host],
    *,
    port: int = DEFAULT_PORT,
    max_restarts: int = 0,
    environment: Mapping[str, str] | None = None,
    python: str = "python",
) -> list[Command]:
    """What is to be typed on each machine: torchrun, whose first machine is where ranks meet. Machines may have
    different numbers of processes; ranks are counted in their order. `max_restarts`: see `local_command`."""
    return [
        Command(
            [
                *_torchrun(python),
                f"--nnodes={len(hosts)}",
                f"--node-rank={number}",
                f"--nproc-per-node={host.num_ranks}",
                f"--master-addr={hosts[0].address}",
                f"--master-port={port}",
                f"--max-restarts={max_restarts}",
                "-m",
                "foreloom",
                *verb,
            ],
            {**(environment or {}), **_devices(host.gpus)},
        )
        for number, host in enumerate(hosts)
    ]


def mpirun_command(
    verb: Sequence[str],
    *,
    hostfile: Hostfile | None = None,
    num_processes: int = 0,
    port: int = DEFAULT_PORT,
    environment: Mapping[str, str] | None = None,
    is_root: bool = False,
    python: str = sys.executable,
) -> Command:
    """Open MPI starts the ranks, one a slot: on the machines of a hostfile, the first of which is where they meet, or
    `num_processes` on this one. It hands `environment` on to all of them; it refuses root, unless told (`is_root`)."""
    hosts = hostfile.hosts if hostfile else (Host(address="127.0.0.1", processes=num_processes),)
    total = num_processes or sum(host.num_ranks for host in hosts)
    shared = {"MASTER_ADDR": hosts[0].address, "MASTER_PORT": str(port), **(environment or {})}
    places = ["--hostfile", str(hostfile.path)] if hostfile else ["--oversubscribe"]
    handed_on = [word for name, value in shared.items() for word in ("-x", f"{name}={value}")]
    # A rank that binds to one core, as Open MPI does by default, has one thread for all it computes.
    settings = ["-np", str(total), *places, "--map-by", "slot", "--bind-to", "none", *handed_on]
    root = ["--allow-run-as-root"] if is_root else []
    return Command(["mpirun", *root, *settings, python, "-m", "foreloom", *verb])


def _torchrun(python: str) -> list[str]:
    return [python, "-m", "torch.distributed.run"]


def _devices(gpus: Sequence[int | str], threads: int = 0) -> dict[str, str]:
    seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if gpus else {}
    return {**seen, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}


def run_folder(verb: Sequence[str]) -> Path | None:
    """Where a `train ... --out` leaves its run; None where the verb does not say."""
    for place, word in enumerate(verb):
        if word == "--out" and place + 1 < len(verb):
            return Path(verb[place + 1])
        if word.startswith("--out="):
            return Path(word.removeprefix("--out="))
    return None
