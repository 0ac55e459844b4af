"""The environment of a run: versions, hardware, commit and command, for whoever wants to run it again."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foreloom import subnormals
from foreloom.files import write_text

FILE_NAME = "environment.json"
PACKAGES = ("foreloom", "torch", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "transformers")


def environment() -> dict[str, Any]:
    """What this process runs on, ready for JSON. The machine's name, its users and its variables are left out.

    `command` is the command line, `git` the commit of the working directory with `dirty` where tracked files differ
    from it (None outside a repository), `versions` of the packages that are installed, `hardware` the processor, its
    cores, the memory and the accelerators, `flushes_subnormals` whether floats below 1.2e-38 count as 0.
    """
    return {
        "command": shlex.join([*_program(Path(sys.argv[0]).name), *sys.argv[1:]]),
        "git": _git(),
        "versions": _versions(),
        "hardware": _hardware(),
        "flushes_subnormals": subnormals.are_flushed(),
    }


def _program(name: str) -> list[str]:
    return ["python", "-m", "foreloom"] if name == "__main__.py" else [name]


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


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    import torch

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
