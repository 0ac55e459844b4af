"""The machine a run is on: the cores and the memory it may really use, who else may use them, and the threads that
follow."""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

_LOGIN_WORDS = ("login", "head", "master")
_CLUSTER_WORDS = ("compute", "node", "gpu", "supercloud", "cluster", "hpc", "slurm")
_MANY_CORES = 32
_MUCH_MEMORY = 100 * 2**30
_MOST_CONSERVATIVE = 6
_UNLIMITED = 2**60
"""What cgroup v1 writes for "no limit" is more."""
_SCHEDULERS = {"SLURM": ("SLURM_JOB_ID", "SLURM_PROCID"), "PBS": ("PBS_JOBID",), "SGE": ("SGE_ROOT",)}


@dataclass(frozen=True)
class Machine:
    """What is known of the machine. Bytes and cores are what this process may use, not what is built in."""

    hostname: str
    num_cores: int
    """Built in."""
    limits: Mapping[str, int]
    """Cores allowed, by who allows them: `affinity`, `cgroup`, `SLURM_CPUS_PER_TASK`."""
    memory_bytes: int | None
    """In the machine, or the cgroup's limit where that is less; None where the system does not tell."""
    free_bytes: int | None
    """Of them, now."""
    shared_because: str
    """Why others probably use the machine too; empty where nothing says so."""
    is_allotted: bool
    """Has a scheduler or a limit given this process a part of its own?"""

    @property
    def cores_allowed(self) -> int:
        return min([self.num_cores, *self.limits.values()])


@dataclass(frozen=True)
class Threads:
    """What torch is given on a machine."""

    num_threads: int
    """Of torch, of each rank."""
    reason: str


def find_machine(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Machine:
    """Looked at now. `root`: where /proc and /sys lie."""
    num_cores = os.cpu_count() or 1
    limits = {"affinity": len(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else {}
    if (quota := _cgroup_cores(root)) is not None:
        limits["cgroup"] = quota
    if environment.get("SLURM_CPUS_PER_TASK", "").isdigit():
        limits["SLURM_CPUS_PER_TASK"] = max(1, int(environment["SLURM_CPUS_PER_TASK"]))
    total, free = _memory(root)
    hostname = socket.gethostname()
    reason = why_shared(environment, hostname, num_cores, total)
    return Machine(hostname, num_cores, limits, total, free, reason, min([num_cores, *limits.values()]) < num_cores)


def why_shared(environment: Mapping[str, str], hostname: str, num_cores: int, memory_bytes: int | None) -> str:
    """Why others probably use a machine too: a scheduler, its name, its size. Empty where nothing says so."""
    for scheduler, names in _SCHEDULERS.items():
        found = [name for name in names if name in environment]
        if found and (scheduler != "SGE" or "JOB_ID" in environment):
            return f"a job of {scheduler} ({found[0]} is set)"
    words = [word for word in (*_LOGIN_WORDS, *_CLUSTER_WORDS) if word in hostname.lower()]
    if words:
        return f"its name, {hostname}, has {words[0]!r} in it"
    if num_cores > _MANY_CORES:
        return f"it has {num_cores} cores, more than {_MANY_CORES}"
    if memory_bytes and memory_bytes > _MUCH_MEMORY:
        return f"it has {memory_bytes / 2**30:.0f} GB of memory, more than {_MUCH_MEMORY // 2**30}"
    return ""


def choose_threads(
    machine: Machine,
    environment: Mapping[str, str] = os.environ,
    *,
    ranks_here: int = 1,
    force_conservative_cpu: bool = False,
) -> Threads:
    """Of each of `ranks_here` ranks that share the machine: an equal part of the cores allowed, of which none is kept
    back for the loader, whose one thread copies more than it computes.

    A quarter of the cores, 6 at most, where it is forced. Else OMP_NUM_THREADS counts, but for the 1 that torchrun sets
    where it starts several ranks; else that quarter again on a login node that has given us no part of our own.
    """
    cores = machine.cores_allowed
    share = max(1, cores // ranks_here)
    conservative = min(share, max(1, min(cores // 4, _MOST_CONSERVATIVE) // ranks_here))
    if force_conservative_cpu:
        return Threads(conservative, f"training.force_conservative_cpu: a quarter of {cores} cores")
    asked = environment.get("OMP_NUM_THREADS", "")
    is_of_torchrun = asked == "1" and "TORCHELASTIC_RUN_ID" in environment and ranks_here > 1
    if asked.isdigit() and int(asked) and not is_of_torchrun:
        return Threads(int(asked), f"OMP_NUM_THREADS={asked}")
    is_login = any(word in machine.hostname.lower() for word in _LOGIN_WORDS)
    if is_login and not machine.is_allotted:
        return Threads(conservative, f"a login node ({machine.hostname}): a quarter of {cores} cores")
    of_ranks = f" for each of {ranks_here} ranks" if ranks_here > 1 else ""
    return Threads(share, f"{cores} cores allowed, {share}{of_ranks}")


def use_threads(threads: Threads) -> bool:
    """Give torch its threads, and tell whether that changed anything. Fewer than it has at any time; more only where
    torchrun left each rank with one."""
    now = torch.get_num_threads()
    is_held_down = now == 1 and "TORCHELASTIC_RUN_ID" in os.environ
    changes = threads.num_threads < now or (is_held_down and threads.num_threads > now)
    if changes:
        torch.set_num_threads(threads.num_threads)
    return changes


def ranks_on_machine(environment: Mapping[str, str] = os.environ, world_size: int = 1) -> int:
    """Ranks of this run that share the machine, as far as the launcher tells; `world_size` where it does not."""
    names = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE")
    told = next((environment[name] for name in names if environment.get(name, "").isdigit()), None)
    return max(1, int(told)) if told and world_size > 1 else world_size


def device_bytes(device: torch.device, ranks_here: int = 1) -> int | None:
    """The memory of a device; of a CPU the part of one of `ranks_here` ranks. None where it is not told."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    total, free = _memory(Path("/"))
    known = [size for size in (total, free) if size is not None]
    return min(known) // ranks_here if known else None


def parse_bytes(text: str) -> int:
    """`80GB`, `24 GiB`, `512MB`: bytes, where a GB is 2^30. ValueError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])i?B?\s*", text, re.IGNORECASE)
    if not match or not float(match[1]):
        raise ValueError(f"memory {text!r}: write a number with its unit, as 80GB or 512MB.")
    return int(float(match[1]) * 2 ** (10 * (1 + "KMGT".index(match[2].upper()))))


def _cgroup_cores(root: Path) -> int | None:
    """The quota of this process's cgroup, or of one above it, in cores; None without one."""
    quotas = []
    for folder in _cgroup_folders(root, "cpu"):
        if (text := _read(folder / "cpu.max")) and not text.startswith("max"):
            quota, period = map(int, text.split())
            quotas.append(quota / period)
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period and quota > 0:
            quotas.append(quota / period)
    return max(1, math.floor(min(quotas))) if quotas else None


def _memory(root: Path) -> tuple[int | None, int | None]:
    """Bytes that this process may have in all, and of those still free."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE))
    total = int(found["MemTotal"]) * 1024 if "MemTotal" in found else None
    free = int(found["MemAvailable"]) * 1024 if "MemAvailable" in found else None
    if total is None and hasattr(os, "sysconf"):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _cgroup_folders(root, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and limit < _UNLIMITED and used is not None:
                total = min(limit, total or limit)
                free = max(0, min(limit - used, free if free is not None else limit))
    return total, free


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Where the limits of a controller may stand: version 2 and 1, this process's cgroup and those above it."""
    folders = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            inner = Path(path.strip("/"))
            for mount in (controllers, controllers and controller):  # cpu,cpuacct, which mostly has the name cpu too
                folders += [root / "sys/fs/cgroup" / mount / part for part in (inner, *inner.parents)]
    return list(dict.fromkeys(folders))


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
