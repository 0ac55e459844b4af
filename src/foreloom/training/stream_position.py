"""Where in the stream of samples a step of a run stood, from what the run wrote into metrics.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from foreloom.data.loader import WindowLoader


class Anchor(NamedTuple):
    """What is known of a step: where the batch after it begins, and how large batches are from there on."""

    step: int
    next_sample: int
    batch_size: int
    fingerprint: str


def anchors(records: Iterable[Mapping[str, Any]]) -> list[Anchor]:
    """The known places of a run, steps increasing: the beginning of each session, and its log lines.

    `records` come in the order written. A session that goes on from an earlier step makes void what came after it.
    """
    known: list[Anchor] = []
    for record in records:
        if record["kind"] == "start" and "from_step" in record:
            place = Anchor(record["from_step"], record["next_sample"], record["batch_size"], str(record["fingerprint"]))
            known = [anchor for anchor in known if anchor.step < place.step]
        elif record["kind"] == "step" and known and record.get("next_sample"):
            place = known[-1]._replace(step=record["step"], next_sample=record["next_sample"])
        else:
            continue
        known.append(place)
    return known


class StepPosition(NamedTuple):
    """Of one step."""

    first_sample: int
    loader: WindowLoader
    """With the batch size that the step had."""


def position_of(
    step: int, known: list[Anchor], last_step: int, open_loader: Callable[[int], WindowLoader]
) -> StepPosition:
    """Where a step's batch begins, walked to from the nearest place before it.

    `open_loader(batch_size)` opens the run's data. Raises ValueError for a step that the run has not made, and where
    the data are not those it was made with.
    """
    before = [anchor for anchor in known if anchor.step < step]
    if not known:
        raise ValueError("this run did not record its place in the data (it was made by an earlier version).")
    if not before or step > last_step:
        raise ValueError(f"there is no step {step:,}: this run has made the steps 1 to {last_step:,}.")
    anchor = before[-1]
    loader = open_loader(anchor.batch_size)
    loader.load_state_dict({"next_sample": anchor.next_sample, "fingerprint": anchor.fingerprint})
    first_sample = anchor.next_sample
    for _ in range(step - 1 - anchor.step):
        first_sample = loader.next_sample(first_sample)
    return StepPosition(first_sample, loader)
