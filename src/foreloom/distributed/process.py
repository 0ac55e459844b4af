"""This process among its peers: rank and world size from whichever launcher started it, and the device it owns."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist

DeviceSetting = Literal["auto", "cpu", "cuda", "mps"]

# First match wins. MPI comes before SLURM: mpirun inside an allocation starts its daemons as SLURM tasks. For SLURM the
# *step* counts, not the job: a batch script's own shell is no task of a job step and must run alone.
_LAUNCHERS = (
    ("torchrun", "RANK", "WORLD_SIZE", ("LOCAL_RANK",)),
    ("OpenMPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    ("PMI", "PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID")),
    ("SLURM", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",)),
)
_DEFAULT_PORT = 29500
RAISED_ON_EVERY_RANK = "raised_on_every_rank"
"""Attribute of an error that all ranks have, so that none waits for another."""


@dataclass(frozen=True)
class Process:
    """Who this process is. `local_rank` counts within the machine and picks the CUDA device."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@dataclass(frozen=True)
class Launch:
    """What the environment says of this process, before any device is chosen."""

    launcher: str
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = _DEFAULT_PORT


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Rank, world size and meeting point from torchrun, OpenMPI, PMI (MPICH, Intel MPI) or SLURM variables.

    Without any of them this is a single process. Raises ValueError where the variables contradict each other or where
    ranks on several machines are not told the address of rank 0.
    """
    for launcher, rank_name, size_name, local_names in _LAUNCHERS:
        if rank_name not in environment or size_name not in environment:
            continue
        rank, world_size = _integer(environment, rank_name), _integer(environment, size_name)
        local_name = next((name for name in local_names if name in environment), None)
        local_rank = _integer(environment, local_name) if local_name else 0
        if not 0 <= rank < world_size:
            raise ValueError(
                f"{rank_name}={rank} is not a rank of {size_name}={world_size}; check how {launcher} started us"
            )
        if world_size == 1:
            return Launch(launcher, local_rank=local_rank)
        address, port = _meeting_point(environment, launcher, world_size)
        return Launch(launcher, rank, world_size, local_rank, address, port)
    if "RANK" in environment or "WORLD_SIZE" in environment:
        raise ValueError("of RANK and WORLD_SIZE only one is set: set both (torchrun does), or neither")
    return Launch("single process")


def first_host(node_list: str) -> str:
    """The first host of a SLURM node list: `gpu[03-05,9],login1` -> `gpu03`."""
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", node_list)
    if not match:
        raise ValueError(f"SLURM's node list {node_list!r} names no host")
    return match[1] + (match[2] or "")


def choose_device(setting: DeviceSetting, launch: Launch, *, has_mps: bool, num_cuda: int) -> str:
    """The device's name. `auto` takes MPS (a single process only), then CUDA, then the CPU."""
    mps_fits = has_mps and launch.world_size == 1
    if setting == "auto":
        setting = "mps" if mps_fits else "cuda" if num_cuda else "cpu"
    if setting == "mps" and not mps_fits:
        reason = (
            "this machine has none" if not has_mps else f"it serves one process and this run has {launch.world_size}"
        )
        raise ValueError(f"device mps was asked for, but {reason}; use auto or cpu")
    if setting != "cuda":
        return setting
    if not num_cuda:
        raise ValueError(
            "device cuda was asked for, but torch sees no CUDA device; use auto or cpu, or install a CUDA build"
        )
    if launch.local_rank >= num_cuda:
        raise ValueError(
            f"local rank {launch.local_rank} has no CUDA device of its own: torch sees {num_cuda}. "
            "Start at most that many processes on a machine, or set training.device=cpu"
        )
    return f"cuda:{launch.local_rank}"


def start(device: DeviceSetting = "auto", *, group_of_one: bool = False, timeout_seconds: float = 1800.0) -> Process:
    """Read the launcher's variables, take a device and, with several ranks, meet the others (collective).

    CUDA ranks get both nccl, for tensors, and gloo, so that decisions travel on the host and never wait for the device.
    With `group_of_one` a launcher's only rank forms a group too, so that one device can try what many will do.
    """
    launch = read_launch(os.environ)
    chosen = choose_device(
        device, launch, has_mps=torch.backends.mps.is_available(), num_cuda=torch.cuda.device_count()
    )
    process = Process(launch.rank, launch.world_size, launch.local_rank, torch.device(chosen))
    if process.device.type == "cuda":
        torch.cuda.set_device(process.device)
    if launch.world_size > 1 or (group_of_one and launch.launcher != "single process"):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if process.device.type == "cuda" else "gloo",
            init_method=f"tcp://{launch.address}:{launch.port}" if launch.launcher != "torchrun" else "env://",
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timedelta(seconds=timeout_seconds),
        )
    return process


def has_group() -> bool:
    """Did this process meet others, or itself as a group of one?"""
    return dist.is_initialized()


def stop() -> None:
    """Leave the group of ranks, if there is one: all together, or at once where an error of this rank alone ends it.

    (A rank that leaves before the others may take their threads of communication down with it.)
    """
    if dist.is_initialized():
        error = sys.exc_info()[1]
        if error is None or getattr(error, RAISED_ON_EVERY_RANK, False):
            dist.barrier()
        dist.destroy_process_group()


def _meeting_point(environment: Mapping[str, str], launcher: str, world_size: int) -> tuple[str, int]:
    port = _DEFAULT_PORT
    if "MASTER_PORT" in environment:
        port = _integer(environment, "MASTER_PORT")
    elif "SLURM_JOB_ID" in environment:
        port += _integer(environment, "SLURM_JOB_ID") % 1000  # two jobs on one machine do not meet
    if "MASTER_ADDR" in environment:
        return environment["MASTER_ADDR"], port
    if launcher == "SLURM" and "SLURM_STEP_NODELIST" in environment:
        return first_host(environment["SLURM_STEP_NODELIST"]), port
    if environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == str(world_size):
        return "127.0.0.1", port
    if environment.get("MPI_LOCALNRANKS") == str(world_size):
        return "127.0.0.1", port
    raise ValueError(f"{launcher} started {world_size} ranks, but MASTER_ADDR is not set: give it the host of rank 0")


def _integer(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ValueError(f"{name}={environment[name]!r} is not a whole number") from None
