"""Which launcher started this process, and which device is its own, by the environment alone, before ranks meet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DeviceSetting = Literal["auto", "cpu", "cuda", "mps"]

# First match wins. MPI comes before SLURM: mpirun inside an allocation starts its daemons as SLURM tasks. For SLURM the
# *step* counts, not the job: a batch script's own shell is no task of a job step and must run alone.
LAUNCHERS = (
    ("torchrun", "RANK", "WORLD_SIZE", ("LOCAL_RANK",)),
    ("OpenMPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    ("PMI", "PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID")),
    ("SLURM", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",)),
)
_DEFAULT_PORT = 29500


@dataclass(frozen=True)
class Launch:
    """What the environment says of this process, before any device is chosen."""

    launcher: str
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = _DEFAULT_PORT
    is_local_told: bool = True
    """Is `local_rank` what the launcher says, or assumed?"""


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Rank, world size and meeting point from torchrun, OpenMPI, PMI (MPICH, Intel MPI) or SLURM variables.

    Without any of them this is a single process. Raises ValueError where the variables contradict each other or where
    ranks on several machines are not told the address of rank 0.
    """
    for launcher, rank_name, size_name, local_names in LAUNCHERS:
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
        return Launch(launcher, rank, world_size, local_rank, address, port, is_local_told=bool(local_name))
    if "RANK" in environment or "WORLD_SIZE" in environment:
        raise ValueError("of RANK and WORLD_SIZE only one is set: set both (torchrun does), or neither")
    return Launch("single process")


def is_restart(environment: Mapping[str, str]) -> bool:
    """Has torchrun started this process anew, a rank or a machine having gone, or SLURM its job, from the queue?"""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(_integer(environment, name) > 0 for name in counts if environment.get(name))


def launch_name(environment: Mapping[str, str]) -> str:
    """What every start of one launch has in common, and no other launch: torchrun's run id; empty where there is none.

    Where a machine comes back, the others' ranks are started anew and their count of restarts stays as it was.
    """
    name = environment.get("TORCHELASTIC_RUN_ID", "")
    return "" if name == "none" else name


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
    if launch.launcher == "torchrun" and launch.world_size > 1 and num_cuda > 1 and not launch.is_local_told:
        raise ValueError(
            f"RANK={launch.rank} and WORLD_SIZE={launch.world_size} are set without LOCAL_RANK, as where they count "
            f"machines (Time-MoE's torch_dist_run.py, Kubernetes), and of the {num_cuda} GPUs here this process would "
            f"take one. Start a rank for each: python -m torch.distributed.run --nnodes={launch.world_size} "
            f"--node-rank={launch.rank} --nproc-per-node={num_cuda} --master-addr={launch.address} "
            f"--master-port={launch.port} -m foreloom ... (`foreloom launch nodes` prints it for every machine). Where "
            "they do count processes, set LOCAL_RANK"
        )
    if launch.local_rank >= num_cuda:
        raise ValueError(
            f"local rank {launch.local_rank} has no CUDA device of its own: torch sees {num_cuda}. "
            "Start at most that many processes on a machine, or set training.device=cpu"
        )
    return f"cuda:{launch.local_rank}"


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
