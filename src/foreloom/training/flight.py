"""The flight recorder: when a step goes wrong, what it was made of is written down while the run goes on.

Nothing is kept for it beforehand: a global batch is a pure function of its first sample, so it is drawn once more.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from foreloom.data.loader import WindowLoader
from foreloom.data.replay import replay_batch
from foreloom.files import strict_json, write_text
from foreloom.training.interval import StepOutcome

FOLDER = "flight"
MAX_RECORDS = 100
"""Of a run, so that one that goes wrong at every step does not fill the disk. Any step can be replayed anyway."""


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


@dataclass(frozen=True)
class Incident:
    """A step that went wrong, in a sentence."""

    kind: str
    """`skipped_step` or `loss_spike`."""
    sentence: str
    file: Path | None
    """Where its windows are listed; None where there are too many such files already."""


class FlightRecorder:
    """Writes `<run_dir>/flight/step-00001234.json` for steps that were skipped, or whose loss is a spike.

    All ranks make one and tell it every step, so that its state is the same; the main one writes.
    """

    def __init__(self, loader: WindowLoader, run_dir: Path, *, is_main: bool) -> None:
        self._loader, self._run_dir, self._is_main = loader, run_dir, is_main
        self._spikes = LossSpikes()
        self._num_records = 0

    def note(self, outcome: StepOutcome) -> Incident | None:
        """Take in a step as read from the device; what there is to say where it went wrong.

        Raises OSError where the file cannot be written.
        """
        if not outcome.is_applied:
            kind, sentence, deviations = "skipped_step", outcome.why_skipped, None
        else:
            before = self._spikes.recent
            usual = median(before) if before else math.nan
            deviations = self._spikes.note(outcome.loss)
            if deviations is None:
                return None
            kind = "loss_spike"
            sentence = (
                f"Step {outcome.step:,}: the loss jumped to {outcome.loss:.4g}, {deviations:.1f} deviations above the "
                f"median {usual:.4g} of the {LossSpikes.WINDOW} steps before."
            )
        self._num_records += 1
        if self._num_records > MAX_RECORDS:
            return Incident(kind, sentence, None)
        path = self._path(outcome.step)
        if self._is_main:
            self._write(path, outcome, kind, deviations)
        shown = path.relative_to(self._run_dir)
        sentence += f" Its windows are in {shown}; `foreloom data replay {self._run_dir} {outcome.step}` shows them."
        return Incident(kind, sentence, path)

    def resume(self, step: int) -> None:
        """Remove what an earlier session recorded after `step`."""
        if self._is_main:
            for path in (self._run_dir / FOLDER).glob("step-*.json"):
                if path > self._path(step):
                    path.unlink()

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self._spikes.recent), "num_records": self._num_records}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._spikes.recent.extend(state["recent"])
        self._num_records = state["num_records"]

    def _path(self, step: int) -> Path:
        return self._run_dir / FOLDER / f"step-{step:08d}.json"

    def _write(self, path: Path, outcome: StepOutcome, kind: str, deviations: float | None) -> None:
        windows = [asdict(window.facts) for window in replay_batch(self._loader, outcome.first_sample)]
        record = {
            "step": outcome.step,
            "kind": kind,
            "loss": outcome.loss,
            "grad_norm": outcome.grad_norm,
            "deviations": deviations,
            "first_sample": outcome.first_sample,
            "next_sample": outcome.next_sample,
        }
        write_text(path, json.dumps(strict_json({**record, "windows": windows}), indent=1, allow_nan=False) + "\n")
