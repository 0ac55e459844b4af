"""Checks before the first step that the ranks are parts of one run: same code and recipe, different samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from foreloom.distributed.process import Process
from foreloom.distributed.reduce import gather_objects


def code_hash() -> str:
    """A digest of every Python file of the installed package."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def check_agreement(facts: Mapping[str, str], process: Process) -> None:
    """Raise ValueError on every rank unless all of them hold the same `facts` (label -> value). Collective."""
    of_ranks = gather_objects(dict(facts), process)
    for rank, other in enumerate(of_ranks):
        for label, value in of_ranks[0].items():
            if other.get(label) != value:
                raise ValueError(
                    f"the ranks disagree on the {label}: rank 0 has {value}, rank {rank} has {other.get(label)}. "
                    "Start every rank from the same code, with the same recipe and the same data"
                )


def check_disjoint(samples: Iterable[int], process: Process) -> None:
    """Raise ValueError on every rank if two ranks drew the same sample of the stream. Collective."""
    owner: dict[int, int] = {}
    for rank, drawn in enumerate(gather_objects(sorted(set(samples)), process)):
        for sample in drawn:
            if sample in owner:
                raise ValueError(
                    f"rank {owner[sample]} and rank {rank} both drew sample {sample}: the ranks would repeat each "
                    "other's work. The loader must be built with this process's rank and world size"
                )
            owner[sample] = rank
