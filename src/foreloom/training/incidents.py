"""Steps that went wrong: told when they happen, and found again in the stream of samples from metrics.jsonl.

Nothing of a batch is kept: it is a pure function of its first sample, so `foreloom data replay` draws it once more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

from foreloom.data.loader import BatchLoader
from foreloom.training.log_interval import StepOutcome
from foreloom.training.state import RunProgress


class Incident(NamedTuple):
    """A step that went wrong, in a sentence."""

    kind: str
    """`skipped_step` or `loss_spike`."""
    sentence: str
    deviations: float | None = None
    """Of a spike: how far above the median."""


class FutileRunError(ValueError):
    """A run in which nothing is learned any more, or nothing ever was."""

    exit_code = 3
    raised_on_every_rank = True


class LossSpikes:
    """Tells a loss that stands out from those of the steps before it.

    It is measured from their median, in deviations of 1.4826 times their median absolute deviation, which is the
    standard deviation where losses are normal. A deviation is at least 1 % of the median, so that a loss which hardly
    moves has no spikes. Losses of small batches from unlike sources have heavy tails: a spike must be `OUTREACH` times
    as far above the median as any of those steps was, so that what was seen lately is no news.
    """

    WINDOW = 50
    """Steps looked back on; no verdict before there are so many."""
    THRESHOLD = 6.0
    """Deviations above the median from which on a loss is a spike."""
    OUTREACH = 2.0

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=self.WINDOW)

    def note(self, loss: float) -> float | None:
        """Take in the loss of a step; where it is a spike, how many deviations above the median it is."""
        height = None
        if len(self.recent) == self.WINDOW:
            middle = median(self.recent)
            deviation = max(1.4826 * median(abs(one - middle) for one in self.recent), 0.01 * abs(middle))
            far = max(self.THRESHOLD * deviation, self.OUTREACH * (max(self.recent) - middle))
            height = (loss - middle) / deviation if loss - middle > far else None
        self.recent.append(loss)
        return height


class Incidents:
    """Looks at every step for those that were skipped, or whose loss is a spike.

    All ranks make one and show it every step, so that its state is the same.
    """

    def __init__(self, run_dir: object) -> None:
        self._run_dir = run_dir
        self._spikes = LossSpikes()
        self._skipped: StepOutcome | None = None  # the newest

    def note(self, outcome: StepOutcome) -> Incident | None:
        """Take in a step as read from the device; what there is to say where it went wrong."""
        if not outcome.is_applied:
            self._skipped = outcome
            return Incident("skipped_step", f"{outcome.why_skipped} {self._look(outcome.step)}")
        before = self._spikes.recent
        usual = median(before) if before else math.nan
        deviations = self._spikes.note(outcome.loss)
        if deviations is None:
            return None
        sentence = (
            f"Step {outcome.step:,}: the loss jumped to {outcome.loss:.4g}, {deviations:.1f} deviations above the "
            f"median {usual:.4g} of the {LossSpikes.WINDOW} steps before. {self._look(outcome.step)}"
        )
        return Incident("loss_spike", sentence, deviations)

    def check(self, progress: RunProgress, *, limit: int, is_over: bool) -> None:
        """Raises FutileRunError where the newest `limit` steps (0: however many) were skipped, or the run is over and
        all were."""
        in_a_row = progress.num_skipped_in_a_row
        is_none = progress.num_skipped_steps == progress.step
        if not in_a_row or not ((is_over and is_none) or 0 < limit <= in_a_row):
            return
        assert self._skipped
        advice = (
            "Lower optimizer.learning_rate, give it a warm-up, and look at the data for values far too large"
            if self._skipped.count
            else "Look at the data with `foreloom data inspect`: targets are missing, or beyond what the model takes"
        )
        how_many = "no step of the run" if is_none else f"none of the last {in_a_row:,} steps"
        raise FutileRunError(
            f"{how_many} has changed a weight. The newest: {self._skipped.why_skipped} {advice}. "
            f"{self._look(self._skipped.step)} (training.max_skipped_steps={limit} says when a run is given up.)"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self._spikes.recent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._spikes.recent.extend(state["recent"])

    def _look(self, step: int) -> str:
        return f"`foreloom data replay {self._run_dir} {step}` shows what it was made of."


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
    loader: BatchLoader
    """With the batch size that the step had."""


def position_of(
    step: int, known: list[Anchor], last_step: int, open_loader: Callable[[int], BatchLoader]
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
