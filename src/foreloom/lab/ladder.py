"""A ladder: runs that differ in nothing but their length share the steps before their cooldowns.

One run stays at the peak learning rate (the trunk); where a length's cooldown begins, a branch leaves it and cools down
(warmup-stable-decay: Hu et al., 2024; Hägele et al., 2024). A rung is, bit for bit, the run of that length trained
alone with `schedule: wsd`.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from pathlib import Path

from foreloom.lab.runs import Outcome, Run, advance, plan, state_of
from foreloom.monitoring.metrics_file import FILE_NAME as METRICS_NAME
from foreloom.run.recipe import write_recipe
from foreloom.training.signals import StopRequest

LEVEL = ("optimizer.schedule=constant", "optimizer.decay_steps=0", "optimizer.decay_shape=linear",
         "optimizer.final_ratio=0")  # fmt: skip
"""What makes a rung's settings those of the trunk."""
OF_LENGTH = ("training.steps", "optimizer.decay_steps", "monitoring.log_steps", "validation.steps")
"""Settings that hang on a run's length, and have no say in what its steps before the cooldown do."""


def kin(recipe: Path, overrides: Sequence[str]) -> Hashable:
    """What runs have in common that may share a trunk."""
    return str(recipe), tuple(one for one in overrides if one.partition("=")[0] not in OF_LENGTH)


def first_cooldown_step(run: Run) -> int:
    """Steps before the learning rate falls; 0 for a run that is no rung."""
    optimizer = run.recipe.sections["optimizer"]
    return run.recipe.sections["training"].num_steps - optimizer.decay_steps if optimizer.decay_steps else 0


def num_trained(lengths: Sequence[tuple[Hashable, int, int]]) -> int:
    """Steps that runs take together, each a (kin, steps, steps of cooldown): every trunk once, and every cooldown."""
    longest: dict[Hashable, int] = {}
    for key, steps, cooldown in lengths:
        longest[key] = max(longest.get(key, 0), steps - cooldown)
    return sum(longest.values()) + sum(cooldown for _, _, cooldown in lengths)


def climb(run: Run, others: Sequence[Run], stop: StopRequest) -> Outcome | None:
    """Bring a rung to where its cooldown begins: from the longest finished piece of trunk that one of its kin among
    `others` has left, or from nothing. How that failed or was stopped, else None; a rung that has begun is left as it
    is. Rungs of several lengths may have one piece of trunk: whoever calls sees to it that one process trains it."""
    if state_of(run) != "absent":
        return None
    own = trunk_of(run)
    if state_of(own) == "absent":
        key, start = kin(run.recipe.path, run.overrides), first_cooldown_step(run)
        shorter = [one for one in others if kin(one.recipe.path, one.overrides) == key]
        pieces = [trunk_of(one) for one in sorted(shorter, key=first_cooldown_step) if first_cooldown_step(one) < start]
        if finished := [piece for piece in pieces if state_of(piece) == "finished"]:
            _branch(finished[-1], own)
    outcome, _ = advance(own, stop, None)
    if outcome.status != "finished":
        return dataclasses.replace(outcome, name=run.name, folder=str(run.folder))
    _branch(own, run)
    return None


def trunk_of(rung: Run) -> Run:
    """The trunk up to where a rung leaves it, beside the rung's folder."""
    start = first_cooldown_step(rung)
    digest = blake2b(repr(kin(rung.recipe.path, rung.overrides)).encode(), digest_size=4).hexdigest()
    overrides = [*rung.overrides, *LEVEL, f"training.steps={start}"]
    folder = rung.folder.with_name(f"trunk-{digest}-{start}")
    return plan(rung.recipe.path, overrides, folder, num_processes=rung.num_processes)


def _branch(parent: Run, child: Run) -> None:
    """Let `child`, which has not begun, begin where `parent` ended: its folder gets the parent's last checkpoint (links
    to the same files) and its record up to there."""
    checkpoint = (parent.folder / "checkpoints" / "final").resolve()
    beside = child.folder.with_name(f".{child.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(checkpoint, beside / "checkpoints" / checkpoint.name, copy_function=os.link)
    shutil.copyfile(parent.folder / METRICS_NAME, beside / METRICS_NAME)
    write_recipe(child.recipe, beside)
    shutil.rmtree(child.folder, ignore_errors=True)  # of a run that was killed before it wrote anything
    beside.rename(child.folder)
