"""What a check comes to: a state, what was found, and what to do about it; for people, and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

State = Literal["ok", "advice", "warning", "failure"]
STATES: tuple[State, ...] = get_args(State)
"""From good to bad: advice makes a run better, a warning may cost it, with a failure it does not run or is wrong."""


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table."""

    name: str
    state: State
    found: str
    remedy: str = ""
    """One thing to do; empty where all is well, and nowhere else."""
    value: Any = None
    """What a program would want of it, ready for JSON."""

    def __post_init__(self) -> None:
        assert bool(self.remedy) == (self.state != "ok"), self

    @property
    def row(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}


def ok(name: str, found: str, value: Any = None) -> Finding:
    """All is well."""
    return Finding(name, "ok", found, value=value)


def worst(findings: Iterable[Finding]) -> State:
    """The worst state of them."""
    return max((one.state for one in findings), key=STATES.index, default="ok")


def of_machines(findings: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """The findings of several machines, by name, as one list in the order of the first: what is well on all, as the
    first has it; what is not, once for all machines that share it, which are named."""
    rows: dict[str, dict[str, list[tuple[str, Finding]]]] = {}
    for machine, own in findings.items():
        for one in own:
            kind = f"{one.found} {one.remedy}" if one.state != "ok" else ""
            rows.setdefault(one.name, {}).setdefault(kind, []).append((machine, one))
    merged = []
    for by_kind in rows.values():
        for kind, those in by_kind.items():
            machines, first = [machine for machine, _ in those], those[0][1]
            if kind and len(findings) > 1:
                first = replace(first, found=f"on {', '.join(machines)}: {first.found}")
            merged.append(first)
    return merged


def in_words(findings: Sequence[Finding]) -> str:
    """A table, a line a finding and one for its remedy, and a last line that sums up."""
    width = max(len(one.name) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{one.state:<8} {one.name:<{width}}  {one.found}")
        if one.remedy:
            lines.append(f"{'':<8} {'':<{width}}  -> {one.remedy}")
    counts = [f"{n} of {state}" for state in STATES[1:] if (n := sum(one.state == state for one in findings))]
    return "\n".join([*lines, f"{len(findings)} checks: {', '.join(counts) or 'all is well'}"])
