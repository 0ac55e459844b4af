"""Where the time of a run goes, by part, and one sentence of advice when a part takes too much of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Part = Literal["data_wait", "forward_backward", "optimizer", "communication", "evaluation", "checkpoint", "other"]

PARTS: tuple[Part, ...] = (
    "data_wait", "forward_backward", "optimizer", "communication", "evaluation", "checkpoint", "other",
)  # fmt: skip
"""`communication` is what ranks tell each other outside forward and backward: the exchange of gradients (DDP) and of
weights (FSDP) overlaps with computing and counts as `forward_backward`."""


NAMES: Mapping[str, str] = {
    **{part: part.replace("_", " ") for part in PARTS},
    "forward_backward": "forward/backward",
}
"""For people."""


class _Limit(NamedTuple):
    share: float
    """The most that calls for no advice."""
    advice: str


_LIMITS: Mapping[Part, _Limit] = {
    "data_wait": _Limit(
        0.2,
        "training waits for data: put them on a local disk, raise data.num_prefetch (where 0, nothing is read ahead), "
        "or give each process more cores",
    ),
    "optimizer": _Limit(
        0.3, "updates cost much of the time: a larger training.batch_size makes fewer of them for the same data"
    ),
    "communication": _Limit(
        0.2,
        "ranks wait for each other: look for a slower one, and raise training.batch_size so that they meet less often",
    ),
    "evaluation": _Limit(
        0.25, "score more rarely: raise validation.steps or benchmark.steps, or lower validation.max_windows"
    ),
    "checkpoint": _Limit(0.1, "checkpoints cost much of the time: raise training.save_steps"),
    "other": _Limit(
        0.25,
        "the host is busy between steps: raise training.batch_size and training.micro_batch_size so that a step does "
        "more, and monitoring.log_steps",
    ),
}


def shares(seconds_by_part: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of the sum; empty where there is no time to share out."""
    total = sum(seconds_by_part.values())
    return {part: seconds / total for part, seconds in seconds_by_part.items()} if total else {}


class Advice(NamedTuple):
    """What to do about a part that takes too much of the time."""

    part: Part
    sentence: str


def advise(seconds_by_part: Mapping[str, float]) -> Advice | None:
    """Advice on the part that is furthest above its limit, in times of the limit; None where none is.

    Limits, as shares of all time: data_wait 20 %, optimizer 30 %, communication 20 %, evaluation 25 %, checkpoint 10 %,
    other 25 %. Forward and backward are what a run is for.
    """
    share_of = shares(seconds_by_part)
    excess = {part: share_of.get(part, 0.0) / limit.share for part, limit in _LIMITS.items()}
    worst = max(excess, key=excess.__getitem__)
    if excess[worst] <= 1:
        return None
    sentence = f"{NAMES[worst]} takes {share_of[worst]:.0%} of the time: {_LIMITS[worst].advice}"
    return Advice(worst, sentence)
