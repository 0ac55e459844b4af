"""Learning-rate transfer: the loss over widths and learning rates, and by how many octaves the best rate moves."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreloom.data.loader import StepBatch
from foreloom.lab.mup.trial import Bench, Trial
from foreloom.run.recipe import config_hash
from foreloom.training.scoring import Validation

FILE_NAME = "transfer.csv"
_COLUMNS = ("recipe", "kind", "width", "log2_rate", "seed", "loss")
_TAIL = 0.1
"""Share of the steps at the end whose mean loss is taken where nothing is held out."""


@dataclass(frozen=True)
class Basin:
    """The losses of one width over learning rates."""

    kind: str
    width: int
    losses: dict[float, float]
    """log2 of the learning rate -> loss, the mean over seeds; those that diverged are infinite."""

    @property
    def best(self) -> float:
        """log2 of the best rate tried."""
        return min(self.losses, key=lambda rate: self.losses[rate])

    @property
    def loss(self) -> float:
        return self.losses[self.best]

    @property
    def is_at_edge(self) -> bool:
        """Is the best the lowest or the highest tried?"""
        return self.best in (min(self.losses), max(self.losses))

    @property
    def vertex(self) -> float | None:
        """log2 of the best rate by the parabola through the best and its neighbours; None at an edge, and beside a run
        that diverged."""
        rates = sorted(self.losses)
        at = rates.index(self.best)
        if self.is_at_edge:
            return None
        three = rates[at - 1 : at + 2]
        values = [self.losses[rate] for rate in three]
        if not all(map(math.isfinite, values)):
            return None
        curvature, slope, _ = np.polyfit(three, values, 2)
        return float(-slope / (2 * curvature)) if curvature > 0 else None


def sweep(
    bench: Bench,
    kinds: Sequence[str],
    widths: Sequence[int],
    log2_rates: Sequence[float],
    *,
    num_seeds: int,
    out: Path,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[Basin]:
    """Train the recipe's model for its steps at each width and learning rate under each kind, and keep each loss in
    `out`/transfer.csv; those that are there already are not trained again.

    The loss is that of what the recipe holds out, or else the mean over the last tenth of the steps. ValueError where
    the file is of another recipe or base width.
    """
    num_steps = bench.training.in_steps(bench.loader.num_epoch_batches).num_steps
    key = f"{config_hash(bench.recipe)} from {bench.base_width}"
    done = _read(out / FILE_NAME, key)
    wanted = list(itertools.product(kinds, widths, log2_rates, range(num_seeds)))
    missing = [one for one in wanted if one not in done]
    batches = _batches(bench, num_steps) if missing else []
    for number, (kind, width, log2_rate, seed) in enumerate(missing, start=1):
        section = bench.section_at(width=width)
        trial = bench.trial(kind, section, seed=seed, learning_rate=2.0**log2_rate)
        loss = _train(bench, trial, batches, 2.0**log2_rate)
        tell(f"[{number}/{len(missing)}] {kind}, width {width}, rate 2^{log2_rate:g}: {loss:.4f}")
        done[kind, width, log2_rate, seed] = loss
        _append(out / FILE_NAME, (key, kind, width, log2_rate, seed, loss))
    mean = lambda kind, width, rate: float(np.mean([done[kind, width, rate, seed] for seed in range(num_seeds)]))
    return [
        Basin(kind, width, {rate: mean(kind, width, rate) for rate in log2_rates}) for kind in kinds for width in widths
    ]


def shift_of(basins: Sequence[Basin]) -> str:
    """By how many octaves the best rate moves from the first width to the last, and what keeping it costs there."""
    first, last = basins[0], basins[-1]
    both = first.vertex is not None and last.vertex is not None
    moved = last.vertex - first.vertex if both else last.best - first.best  # type: ignore[operator]
    kept = last.losses[first.best]
    cost = f"{kept - last.loss:.3f} more than its best" if math.isfinite(kept) else "no number: it diverges"
    edges = [f"{one.width}" for one in basins if one.is_at_edge]
    warning = (
        f" At width {', '.join(edges)} the best is at the edge of the rates tried: widen --rates." if edges else ""
    )
    return (
        f"{first.kind}: the best rate moves by {moved:+.1f} octaves from width {first.width} to {last.width}; at the "
        f"first width's best, width {last.width} has a loss of {kept:.4f}, {cost}.{warning}"
    )


def _batches(bench: Bench, num_steps: int) -> list[StepBatch]:
    batches, first = [], 0
    for _ in range(num_steps):
        batches.append(bench.loader.batch(first))
        first = batches[-1].next_sample
    return batches


def _train(bench: Bench, trial: Trial, batches: Sequence[StepBatch], rate: float) -> float:
    """The loss in the end; infinite where it is no number."""
    config = dataclasses.replace(bench.optimizer, learning_rate=rate)
    stepper, totals = trial.stepper(carries=True), []
    for number, batch in enumerate(batches, start=1):
        totals.append(stepper.run(batch, config.learning_rate_of(number, len(batches))).totals)
    losses = [total[0].item() for total in totals]
    validation = bench.recipe.sections["validation"]
    held_out = bench.data.held_out(
        validation, bench.dataset, micro_batch_size=bench.training.batch_size, rank=0, world_size=1
    )
    if held_out is None:
        loss = float(np.mean(losses[-max(round(len(losses) * _TAIL), 1) :]))
    else:
        record = Validation(validation, held_out).run(len(batches), trial.parallel, trial.family, trial.process)
        assert record is not None
        loss = record.loss
    return loss if math.isfinite(loss) and math.isfinite(losses[-1]) else math.inf


def _read(path: Path, key: str) -> dict[tuple[str, int, float, int], float]:
    if not path.is_file():
        return {}
    found = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                where = row["kind"], int(row["width"]), float(row["log2_rate"]), int(row["seed"])
                of, found[where] = row["recipe"], float(row["loss"])
            except (KeyError, TypeError, ValueError):
                raise ValueError(
                    f"{path}:{number}: expected the columns {', '.join(_COLUMNS)}, numbers from the width on; delete "
                    "the line, and its run is trained again."
                ) from None
            if of != key:
                raise ValueError(
                    f"{path}:{number}: of another recipe, other settings or another base width (the first of --widths "
                    "where the recipe has none); give another --out, or delete the file."
                )
    return found


def _append(path: Path, row: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(_COLUMNS)
        writer.writerow(row)
