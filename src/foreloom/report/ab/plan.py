"""What an A/B test trains: whether two recipes can be compared, for how many steps, in which order. All pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from foreloom.config.loader import Recipe, flatten, plain

Equal = Literal["steps", "compute", "both"]
"""What the two recipes get the same of."""
Arm = Literal["A", "B", "B-equal-compute"]

SAME_DATA = (
    "sources", "context_length", "prediction_length", "min_past", "series_choice", "stride", "quarantine",
)  # fmt: skip
"""Of `data`; the rest (normalization, groups, read-ahead) a recipe may choose with its model."""
SAME_VALIDATION = ("sources", "max_windows", "stride")
NUM_CURVE_POINTS = 20
"""Validations of a run whose recipe asks for none."""


@dataclass(frozen=True)
class Size:
    """What a recipe costs, as its trainer would count it."""

    num_steps: int
    num_parameters: int
    flops_per_step: float
    """Forward and backward of `training.batch_size` rows."""
    loss_units: tuple[Any, ...] = ()
    """See `ModelFamily.loss_units`."""


@dataclass(frozen=True)
class Training:
    """One run of the test."""

    arm: Arm
    seed: int
    num_steps: int

    @property
    def name(self) -> str:
        """Also that of its folder."""
        return f"{self.arm}-seed-{self.seed}"

    @property
    def is_of_b(self) -> bool:
        return self.arm != "A"


@dataclass(frozen=True)
class Comparison:
    """A's runs beside some of B's."""

    title: str
    arm: Arm
    """Of B."""


def check_comparable(a: Recipe, b: Recipe) -> None:
    """ValueError, listing every difference, where the recipes do not train and validate on the same windows; and where
    they hold nothing out."""
    lines = []
    for section, names in (("data", SAME_DATA), ("validation", SAME_VALIDATION)):
        of_a, of_b = (
            flatten({section: {name: plain(getattr(recipe.sections[section], name)) for name in names}})
            for recipe in (a, b)
        )
        lines += [
            f"  {key}: {of_a.get(key, 'not there')} in A, {of_b.get(key, 'not there')} in B"
            for key in dict.fromkeys([*of_a, *of_b])
            if of_a.get(key) != of_b.get(key)
        ]
    if lines:
        raise ValueError(
            "The two recipes do not have the same data, so their losses say nothing about each other:\n"
            + "\n".join(lines)
            + "\nMake these settings the same, or give them once for both, after the recipes: data.context_length=256"
        )
    if not a.sections["validation"].sources and not any(source.holdout for source in a.sections["data"].sources):
        length = a.sections["data"].prediction_length
        raise ValueError(
            "Nothing is held out to compare the recipes on. Set data.sources.0.holdout, the last steps of every series "
            f"that training leaves alone, to data.prediction_length ({length}) or more; or name data sets of their own "
            "in validation.sources."
        )


def is_loss_comparable(recipes: tuple[Recipe, Recipe], sizes: tuple[Size, Size]) -> bool:
    """Is the loss of the two the same quantity: of one family, in one unit, on values brought to the same scale?"""
    scales = [(r.sections["data"].normalization, r.sections["data"].normalization_scope) for r in recipes]
    units = [(r.sections["model"].family, size.loss_units) for r, size in zip(recipes, sizes, strict=True)]
    return scales[0] == scales[1] and units[0] == units[1]


def parse_equal(text: str) -> Equal:
    """What was typed; ValueError for anything else."""
    for known in get_args(Equal):
        if text == known:
            return known
    raise ValueError(f"--equal {text!r}: expected {', '.join(get_args(Equal))}.")


def steps_at_equal_compute(a: Size, b: Size) -> int:
    """The steps of B that A's FLOPs pay for, to the nearest, 1 at least."""
    return max(round(a.num_steps * a.flops_per_step / b.flops_per_step), 1)


def comparisons(a: Size, b: Size, equal: Equal) -> dict[Comparison, int]:
    """What is compared -> the steps of B. A is the yardstick: it is trained once, for its recipe's steps."""
    num_steps = steps_at_equal_compute(a, b)
    if num_steps == a.num_steps:
        return {Comparison("At equal steps, to the nearest step equal compute", "B"): num_steps}
    of_steps = {Comparison("At equal steps", "B"): a.num_steps}
    of_compute = {Comparison("At equal compute", "B-equal-compute"): num_steps}
    return {"steps": of_steps, "compute": of_compute, "both": of_steps | of_compute}[equal]


def trainings(a: Size, compared: dict[Comparison, int], seeds: Sequence[int]) -> list[Training]:
    """A and B in turn, seed by seed, so that what a machine does at a time of the day happens to both."""
    steps_of_arm: dict[Arm, int] = {"A": a.num_steps, **{one.arm: steps for one, steps in compared.items()}}
    return [Training(arm, seed, num_steps) for seed in seeds for arm, num_steps in steps_of_arm.items()]


def overrides_of(training: Training, recipe: Recipe, common: Sequence[str], longest: int) -> list[str]:
    """The settings that make a recipe this training: the user's `common` ones, then its own.

    Where the recipe measures no validation loss it gets `NUM_CURVE_POINTS` of them over `longest` steps.
    """
    own = [f"training.steps={training.num_steps}", f"training.seed={training.seed}"]
    if recipe.sections["training"].epochs is not None:
        own.insert(0, "training.epochs=null")
    if not recipe.sections["validation"].steps:
        own.append(f"validation.steps={max(longest // NUM_CURVE_POINTS, 1)}")
    return [*common, *own]


def own_steps_note(a: Size, b: Size) -> str | None:
    """A sentence where B's recipe says another number of steps than A's, which it does not get."""
    if a.num_steps == b.num_steps:
        return None
    return f"B's recipe says {b.num_steps:,} steps; A's {a.num_steps:,} are the yardstick here."
