"""Which machines a run is started on, and which of their devices it takes: named one by one, or by a hostfile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom.config.loader import from_words
from foreloom.config.section import section
from foreloom.distributed.network import loopback_of

DEFAULT_PORT = 29500
"""torchrun's."""


@section
class Host:
    """A machine that ranks are started on."""

    address: str
    """Its name or IP address, as the other machines reach it."""
    processes: int = 0
    """Ranks on it; 0: one for each of `gpus`."""
    gpus: tuple[int, ...] = ()
    """The GPUs it gives, by number; empty: the first ones, as many as processes."""

    def __post_init__(self) -> None:
        if not self.address or re.search(r"\s", self.address):
            raise ValueError(f"address {self.address!r} is no name of a machine")
        if len(set(self.gpus)) < len(self.gpus) or any(number < 0 for number in self.gpus):
            raise ValueError(f"gpus of {self.address}: {list(self.gpus)} are to be different numbers from 0")
        if self.processes < 0 or (not self.processes and not self.gpus):
            raise ValueError(f"{self.address} needs processes or gpus, one at least")
        if self.gpus and self.processes not in (0, len(self.gpus)):
            raise ValueError(
                f"{self.address} has {self.processes} processes for {len(self.gpus)} gpus; each takes one: leave "
                "processes out"
            )

    @property
    def num_ranks(self) -> int:
        return self.processes or len(self.gpus)


def parse_host(text: str) -> Host:
    """`ADDRESS:4`, four processes; `ADDRESS:2,3` or `ADDRESS:2,`, the GPUs of these numbers."""
    address, colon, devices = text.rpartition(":")
    if not colon or not re.fullmatch(r"\d+|(\d+,)+\d*", devices):
        raise ValueError(
            f"--node {text!r}: write ADDRESS:N for N processes, or ADDRESS:2,3 for the GPUs 2 and 3 of it."
        )
    gives = {"gpus": [int(one) for one in devices.split(",") if one]} if "," in devices else {"processes": int(devices)}
    return from_words(Host, {"address": address, **gives}, f"--node {text}")


def check_hosts(hosts: Sequence[Host], total: int = 0) -> None:
    """ValueError where a machine is named twice, where the processes are not `total` (0: any), and where others could
    not reach the first one."""
    named: dict[str, int] = {}
    for number, host in enumerate(hosts, start=1):
        if host.address in named:
            raise ValueError(
                f"machine {number}, {host.address}, is machine {named[host.address]} too; name each once, with all its "
                "processes."
            )
        named[host.address] = number
    if total and total != (found := sum(host.num_ranks for host in hosts)):
        parts = " + ".join(str(host.num_ranks) for host in hosts)
        raise ValueError(
            f"{parts} processes are {found}, not the {total} that are to be started in all (--total). Correct one."
        )
    if len(hosts) > 1 and (loop := loopback_of(hosts[0].address)):
        raise ValueError(
            f"the first machine, {hosts[0].address}, is {loop} here, which every machine has for itself: the others "
            "would look for rank 0 at home. Give the address by which they reach it (`hostname -I` lists them)."
        )


@dataclass(frozen=True)
class Hostfile:
    """Open MPI's list of machines."""

    path: Path
    hosts: tuple[Host, ...]


def read_hostfile(path: Path) -> Hostfile:
    """Lines `host slots=N`; # begins a comment. ValueError names a line that is none, one without slots, and a machine
    that stands there twice."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read as a hostfile ({getattr(error, 'strerror', None) or error})."
        ) from None
    hosts, line_of = [], {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        address, settings = words[0], {}
        for word in words[1:]:
            name, _, value = word.partition("=")
            settings[name] = value
        slots = settings.pop("slots", "")
        settings.pop("max_slots", settings.pop("max-slots", None))
        if settings:
            raise ValueError(f"{path}:{number}: {line.strip()!r} is not of the form `host slots=N`.")
        if not slots.isdecimal() or not int(slots):
            raise ValueError(f"{path}:{number}: {address} has no slots; say how many processes it takes: slots=8.")
        if address in line_of:
            raise ValueError(
                f"{path}:{number}: {address} stands in line {line_of[address]} too; give it one line with all slots."
            )
        line_of[address] = number
        hosts.append(from_words(Host, {"address": address, "processes": int(slots)}, f"{path}:{number}"))
    if not hosts:
        raise ValueError(f"{path}: names no machine; a line is `host slots=N`.")
    return Hostfile(path, tuple(hosts))
