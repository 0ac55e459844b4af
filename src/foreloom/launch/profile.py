"""A profile: what a site is like, in a file of its own, so that nothing of it stands in code or in a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from foreloom.config.loader import line_of, validate
from foreloom.config.located import RecipeError, read_yaml
from foreloom.config.section import section
from foreloom.launch.hosts import DEFAULT_PORT, Host
from foreloom.launch.slurm import SlurmJob


@section
class StudiesConfig:
    """What the studies of the lab may hold of a cluster."""

    gpus_at_once: Annotated[int, Field(ge=1)] = 8
    """GPUs of all tasks that run at a time, together."""
    gpus_limit: Annotated[int, Field(ge=1)] | None = None
    """The most that an account may hold; more asked for is warned of."""
    gpus_per_process: Annotated[int, Field(ge=0)] = 1
    """Of each process that trains; 0: none, a CPU cluster."""


@section
class Profile:
    """Machines and how to reach them."""

    hosts: tuple[Host, ...] = ()
    """Machines that ranks are started on by hand, the one of rank 0 first."""
    total: Annotated[int, Field(ge=0)] = 0
    """Processes of all of them, to be checked; 0: whatever they add up to."""
    port: Annotated[int, Field(ge=1, le=65535)] = DEFAULT_PORT
    """Where ranks meet on the first machine."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Variables for all ranks (NCCL_SOCKET_IFNAME: eth0)."""
    slurm: SlurmJob = Field(default_factory=SlurmJob)
    """What jobs ask for."""
    studies: StudiesConfig = Field(default_factory=StudiesConfig)
    """What the lab's studies may hold."""


def read_profile(path: Path | None) -> Profile:
    """A YAML file; the defaults without one. `RecipeError` lists what is wrong with it, each with its line."""
    if path is None:
        return Profile()
    located = read_yaml(path)
    if not isinstance(values := located.values or {}, Mapping):
        raise RecipeError([f"{path}: expected settings (hosts, slurm, environment), got {values!r}."])
    profile, problems = validate(Profile, values, located, "")
    if problems:
        raise RecipeError(sorted(problems, key=line_of))
    return profile
