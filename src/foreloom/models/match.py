"""Two architectures of one size: the width at which a model has as many parameters as another, or as a number."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch

from foreloom.models.common.count import ParameterTotals, parameter_totals
from foreloom.models.family import ModelFamily


class Matched(NamedTuple):
    """A model as large as asked for."""

    config: Any
    """Its `model` section, the width set."""
    width: int
    totals: ParameterTotals
    target: ParameterTotals | int
    """What it is as large as: where a model was given, its non-embedding parameters may well differ."""

    @property
    def error(self) -> float:
        """Of the total, relative to the target's: 0.01 is one per cent too many."""
        return self.totals.total / _total(self.target) - 1


def totals_of(family: ModelFamily, config: Any, data: Any) -> ParameterTotals:
    """The parameters of the model of two sections of a recipe, which is built without memory for its values."""
    with torch.device("meta"):
        return parameter_totals(family.parts(family.build(config, data)))


def match_parameters(
    family: ModelFamily,
    config: Any,
    data: Any,
    target: ParameterTotals | int,
    *,
    tolerance: float = 0.02,
    multiple_of: int = 1,
) -> Matched:
    """The section with the width, a multiple of `multiple_of`, at which the model's total is nearest to the target.

    Heads and feed-forward go with the width as the family has it, all else of the section stays as it is. ValueError
    where even the nearest is off by more than `tolerance`.
    """
    wanted = _total(target)
    its: dict[int, ParameterTotals] = {}

    def total(number: int) -> int:
        if number not in its:
            its[number] = totals_of(family, _at(family, config, number * multiple_of), data)
        return its[number].total

    above = 1
    while total(above) < wanted:
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (middle, above) if total(middle) < wanted else (below, middle)
    number = min((n for n in (below, above) if n), key=lambda n: abs(total(n) - wanted))
    width = number * multiple_of
    found = Matched(_at(family, config, width), width, its[number], target)
    if abs(found.error) > tolerance:
        near = " and ".join(f"{total(n):,} at width {n * multiple_of}" for n in (below, above) if n)
        raise ValueError(
            f"no width of this {family.name} has {wanted:,} parameters within {tolerance:.0%}: {near}. Change its "
            "num_layers, or ask for another number."
        )
    return found


def _at(family: ModelFamily, config: Any, width: int) -> Any:
    if family.scaling is None:
        return dataclasses.replace(config, d_model=width)
    return family.scaling.resized(config, width, "more")


def _total(target: ParameterTotals | int) -> int:
    return target if isinstance(target, int) else target.total
