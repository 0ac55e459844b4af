"""A ladder: finished models of many lengths for little more than the longest one costs.

One run stays at the peak learning rate (the trunk); where a length's cooldown begins, a branch leaves it and cools down
(warmup-stable-decay: Hu et al., 2024; Hägele et al., 2024). A rung is, bit for bit, the run of that length trained
alone with `schedule: wsd`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom.checkpoint.manifest import Manifest
from foreloom.config.loader import Recipe
from foreloom.config.shipped import find_recipe
from foreloom.lab.runs import Outcome, Run, execute, plan, state_of
from foreloom.monitoring.metrics_file import FILE_NAME as METRICS_NAME
from foreloom.run import load
from foreloom.run.recipe import write_recipe
from foreloom.training.optimizer import num_warmup_updates
from foreloom.training.signals import StopRequest


@dataclass(frozen=True)
class Rung:
    """A finished model, and the piece of the trunk that it leaves."""

    num_steps: int
    num_cooldown: int
    trunk: Run
    """At the peak, up to where the cooldown begins."""
    run: Run

    @property
    def first_cooldown_step(self) -> int:
        return self.num_steps - self.num_cooldown


@dataclass(frozen=True)
class Ladder:
    """From the shortest rung to the longest."""

    rungs: tuple[Rung, ...]

    @property
    def num_steps(self) -> int:
        """That are trained: the trunk and every cooldown."""
        return self.rungs[-1].first_cooldown_step + sum(rung.num_cooldown for rung in self.rungs)

    @property
    def num_steps_alone(self) -> int:
        """That training each rung by itself would take."""
        return sum(rung.num_steps for rung in self.rungs)


def plan_ladder(
    recipe: str | Path, lengths: Sequence[int], out: Path, *, cooldown: float = 0.2, overrides: Sequence[str] = ()
) -> Ladder:
    """The runs of a ladder of `lengths`, in steps, below the folder `out`; `cooldown` is the share of each in which it
    cools down. ValueError for lengths that leave nothing between warm-up and cooldown, or a recipe with patience."""
    lengths = sorted(lengths)
    if len(set(lengths)) < len(lengths) or not lengths:
        raise ValueError(f"the rungs {lengths} are to be different numbers of steps, one at least.")
    if not 0 < cooldown < 1:
        raise ValueError(
            f"a cooldown of {cooldown:g} is to be a share of a rung, between 0 and 1; 0.1 to 0.2 is common."
        )
    cooldowns = [max(1, round(cooldown * length)) for length in lengths]
    base = load(find_recipe(recipe), [*overrides, f"training.steps={lengths[0]}", "training.epochs=null"])
    warmup = _num_warmup(base, lengths[0])
    starts = [length - cool for length, cool in zip(lengths, cooldowns, strict=True)]
    if starts[0] <= warmup:
        raise ValueError(
            f"a rung of {lengths[0]:,} steps has {cooldowns[0]:,} of cooldown and {warmup:,} of warm-up, which leaves "
            "nothing between; make it longer, or the warm-up shorter (optimizer.warmup_steps)."
        )
    if base.sections["validation"].restores:
        raise ValueError(
            "the recipe ends with its best weights (validation.patience, validation.restore_best), and a rung of a "
            "ladder ends with its last; add validation.patience=0 validation.restore_best=null."
        )
    own = [*overrides, "training.epochs=null", "optimizer.warmup_ratio=0", f"optimizer.warmup_steps={warmup}"]
    level = ["optimizer.schedule=constant", "optimizer.final_ratio=0"]
    falling = ["optimizer.schedule=wsd", "optimizer.decay_ratio=0"]
    rungs = []
    for length, cool, start in zip(lengths, cooldowns, starts, strict=True):
        trunk = plan(recipe, [*own, *level, f"training.steps={start}"], out / f"trunk-{start}")
        cooling = [*own, *falling, f"optimizer.decay_steps={cool}", f"training.steps={length}"]
        rungs.append(Rung(length, cool, trunk, plan(recipe, cooling, out / f"rung-{length}")))
    return Ladder(tuple(rungs))


def climb(ladder: Ladder, out: Path, stop: StopRequest) -> list[Outcome]:
    """Train trunk and rungs, shortest first; the outcomes of the rungs that ended, failed ones too.

    What is finished stays, what was begun goes on; a rung whose piece of the trunk failed is left out.
    """
    outcomes: list[Outcome] = []
    before: Run | None = None
    for rung in ladder.rungs:
        if before is not None:
            _branch(before, rung.trunk)
        (piece,) = execute([rung.trunk], out, stop) or [None]
        if piece is None or piece.status != "finished":
            return outcomes
        _branch(rung.trunk, rung.run)
        outcomes += execute([rung.run], out, stop)
        if stop.signal_number:
            return outcomes
        before = rung.trunk
    return outcomes


def _branch(parent: Run, child: Run) -> None:
    """Let `child` begin where `parent` ended: its folder gets the parent's last checkpoint (links to the same files)
    and its record up to there. Nothing happens where the child has begun."""
    if state_of(child) != "absent":
        return
    checkpoint = (parent.folder / "checkpoints" / "final").resolve()
    assert Manifest.read(checkpoint).final
    beside = child.folder.with_name(f".{child.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(checkpoint, beside / "checkpoints" / checkpoint.name, copy_function=os.link)
    shutil.copyfile(parent.folder / METRICS_NAME, beside / METRICS_NAME)
    write_recipe(child.recipe, beside)
    shutil.rmtree(child.folder, ignore_errors=True)  # of a run that was killed before it wrote anything
    beside.rename(child.folder)


def _num_warmup(recipe: Recipe, num_steps: int) -> int:
    """A share is one of the shortest rung: all rungs have the same warm-up."""
    optimizer = recipe.sections["optimizer"]
    return num_warmup_updates(num_steps, warmup_steps=optimizer.warmup_steps, warmup_ratio=optimizer.warmup_ratio)
