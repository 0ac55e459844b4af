"""What a run runs on: versions, hardware, commit and command for whoever runs it again, and the peak of its devices."""

from __future__ import annotations

import functools
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foreloom import subnormals
from foreloom.distributed.launcher import Launch, read_launch
from foreloom.files import write_text
from foreloom.monitoring.accelerators import peak_flops

FILE_NAME = "environment.json"
PACKAGES = ("foreloom", "torch", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "transformers")


def environment() -> dict[str, Any]:
    """What this process runs on, ready for JSON. The machine's name, its users and its variables are left out.

    `command` is the command line, `git` the commit of the working directory with `dirty` where tracked files differ
    from it (None outside a repository), `versions` of the packages that are installed, `hardware` the processor, its
    cores, the memory and the accelerators, `flushes_subnormals` whether floats below 1.2e-38 count as 0.
    """
    return {
        "command": shlex.join([*_program(Path(sys.argv[0]).name, read_launch(os.environ)), *sys.argv[1:]]),
        "git": _git(),
        "versions": _versions(),
        "hardware": _hardware(),
        "flushes_subnormals": subnormals.are_flushed(),
    }


def _program(name: str, launch: Launch) -> list[str]:
    """What was started, by what, on how many ranks."""
    if launch.world_size == 1:
        return ["python", "-m", "foreloom"] if name == "__main__.py" else [name]
    module = ["-m", "foreloom"]
    if launch.launcher != "torchrun":
        return ["srun" if launch.launcher == "SLURM" else "mpirun", "-n", str(launch.world_size), "python", *module]
    on_each = int(os.environ.get("LOCAL_WORLD_SIZE", launch.world_size))
    if on_each == launch.world_size:
        return ["torchrun", "--standalone", "--nproc-per-node", str(on_each), *module]
    machines = ["--nnodes", str(launch.world_size // on_each), "--nproc-per-node", str(on_each)]
    return ["torchrun", *machines, "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:PORT", *module]


def write_environment(run_dir: Path) -> None:
    """Write `environment()` to `<run_dir>/environment.json`, whole or not at all."""
    write_text(run_dir / FILE_NAME, json.dumps(environment(), indent=2) + "\n")


def _git() -> dict[str, Any] | None:
    def ask(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet
        return None


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    hardware: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
    }
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        hardware["accelerators"] = [{"name": device.name, "memory_bytes": device.total_memory} for device in devices]
        hardware["cuda"] = torch.version.cuda
    elif torch.backends.mps.is_available():
        hardware["accelerators"] = [{"name": "Apple MPS"}]
    return hardware


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def utilisation(flops: float, seconds: float, num_devices: int, peak: float) -> float:
    """MFU: model FLOPs a second over what the devices could do (Chowdhery et al. 2022, PaLM, appendix B).

    `flops` counts the model's matrix products, forward and backward, without what activation checkpointing repeats.
    """
    return flops / (seconds * num_devices * peak)


def peak_bytes(device: torch.device) -> tuple[int, str]:
    """The most memory that was in use so far, and of what: a CUDA device's tensors, else the process as a whole."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "on the device"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of the process, libraries and all"


class Peak(NamedTuple):
    """Against what the MFU of a run is measured."""

    flops: float | None
    """A second, of one device."""
    sentence: str
    """Where that figure comes from, or why there is none."""


def find_peak(device: torch.device, setting: float | None) -> Peak:
    """The peak of a device: as the recipe says, else as its name tells."""
    if setting is not None:
        return Peak(setting, f"of {setting / 1e12:,.4g} TFLOP/s a device, as monitoring.peak_flops says")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    flops = peak_flops(name)
    if flops is None:
        return Peak(None, f"not measured: the peak of {name!r} is not known; monitoring.peak_flops can tell")
    return Peak(flops, f"of {flops / 1e12:,.4g} TFLOP/s, the bf16 peak of {name}")
