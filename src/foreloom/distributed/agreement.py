"""Checks before the first step that the ranks are parts of one run: same code and recipe, different samples."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from foreloom.distributed.process import Process
from foreloom.distributed.reduce import gather_objects

_MOST_TOLD = 4
"""Things that differ between ranks."""


def code_files() -> dict[str, str]:
    """Every Python file of the installed package, with a digest of it."""
    package = Path(__file__).resolve().parents[1]
    return {
        path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        for path in sorted(package.rglob("*.py"))
    }


@functools.cache
def code_hash() -> str:
    """A digest of them all, as they were when this process first asked."""
    return hashlib.sha256(repr(code_files()).encode()).hexdigest()[:16]


def differences(of_ranks: Sequence[Mapping[str, str]]) -> str:
    """What is not alike on all ranks, the first few things, each with the rank that has another than rank 0; empty
    where all is."""
    told = []
    for label in dict.fromkeys(label for one in of_ranks for label in one):
        first = of_ranks[0].get(label)
        other = next((rank for rank, one in enumerate(of_ranks) if one.get(label) != first), None)
        if other is not None:
            told.append(f"{label}: rank 0 has {first or 'none'}, rank {other} has {of_ranks[other].get(label, 'none')}")
    more = f"; and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return "; ".join(told[:_MOST_TOLD]) + more


def check_agreement(
    facts: Mapping[str, str],
    process: Process,
    parts: Mapping[str, Callable[[], Mapping[str, str]]] = MappingProxyType({}),
) -> None:
    """Raise ValueError on every rank unless all of them hold the same `facts` (label -> value). Collective.

    `parts`: of a fact that is a digest, what it is the digest of, by name; only those that differ are told.
    """
    of_ranks = gather_objects(dict(facts), process)
    for label in facts:
        its = [one.get(label, "none") for one in of_ranks]
        if len(set(its)) > 1:
            told = differences(gather_objects(dict(parts[label]()), process)) if label in parts else ""
            told = told or differences([{label: value} for value in its])
            raise ValueError(
                f"the ranks disagree on the {label} ({told}). Start every rank from the same code, with the same "
                "recipe and the same data"
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
