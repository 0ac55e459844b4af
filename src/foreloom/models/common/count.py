"""The parameters of a model by what they are for, of what kind they are, how many a forecast runs through; and what a
row costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from torch import Tensor, nn

from foreloom.models.common.moe import StackedExperts


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that belong together."""

    name: str
    num_parameters: int
    num_active: int
    """Those that one choice of experts runs through: a series, or a step where each goes its own way."""
    in_mixture: bool = False
    """Would the same model without its experts lack them?"""


def count_parameters(
    module: nn.Module, groups: Mapping[str, str], mixture: Mapping[str, Fraction] | None = None
) -> tuple[ParameterGroup, ...]:
    """Each parameter once, in the group of the first pattern found in its name; groups in the order of the patterns.

    `mixture`: the groups that are there for the experts' sake, with the share of each that is active.
    """
    count = dict.fromkeys(groups.values(), 0)
    for name, parameter in module.named_parameters():
        count[next(group for pattern, group in groups.items() if re.search(pattern, name))] += parameter.numel()
    mixture = mixture or {}
    return tuple(
        ParameterGroup(name, number, int(number * mixture.get(name, 1)), in_mixture=name in mixture)
        for name, number in count.items()
        if number
    )


def by_child(module: nn.Module) -> tuple[ParameterGroup, ...]:
    """A group for each child of the module that has parameters: for families without experts."""
    return count_parameters(module, {rf"^{name}\.": name.replace("_", " ") for name, _ in module.named_children()})


@dataclass(frozen=True)
class ParameterTotals:
    """How many parameters a language model has, by the two conventions that scaling laws use."""

    total: int
    embedding: int
    """Tables of tokens and of positions, and a head of its own: what grows with the vocabulary or the length alone."""

    @property
    def non_embedding(self) -> int:
        """As Kaplan et al. 2020 count."""
        return self.total - self.embedding


def parameter_totals(groups: Sequence[ParameterGroup]) -> ParameterTotals:
    """Of a family's `parts`, of which `embedding` and `head` are the ends."""
    ends = sum(group.num_parameters for group in groups if group.name in ("embedding", "head"))
    return ParameterTotals(sum(group.num_parameters for group in groups), ends)


def flops_of_row(module: nn.Module, num_tokens: int, *, lookups: Sequence[Tensor], attended: float = 0) -> float:
    """Forward and backward FLOPs of a row of tokens: 2 a multiply-add, and backward costs twice the forward.

    A token costs 6 for each weight that it is multiplied with: every matrix once, but for the `lookups`, tables that
    are only looked up (a tied one is the head, and counts). And 12 for each number of the keys that it attends to:
    `attended` is their sum over layers, on average over tokens; a causal token sees half of a row, so L layers D wide
    have L D T / 2, 6 L D T FLOPs a token. Norms, activations and softmax are not counted.
    """
    tables = {id(one) for one in lookups}
    weights = sum(p.numel() for p in module.parameters() if p.ndim > 1 and id(p) not in tables)
    return float(num_tokens) * (6.0 * weights + 12.0 * attended)


class ParameterKind(StrEnum):
    """What a parameter is in its network, which decides how it is updated: decay, step sizes by width, Muon."""

    INPUT = "input"
    """A matrix whose inputs do not grow with the width: an embedding, the first projection."""
    HIDDEN = "hidden"
    """A matrix from width to width."""
    OUTPUT = "output"
    """A matrix whose outputs do not grow with the width: the head."""
    VECTOR = "vector"
    """A bias or a gain."""


def by_shape(module: nn.Module) -> dict[str, ParameterKind]:
    """Kinds told by shape alone: embedding tables are input, other matrices hidden, the rest vectors."""
    tables = {id(one.weight) for one in module.modules() if isinstance(one, nn.Embedding)}
    found = {
        name: ParameterKind.INPUT if id(p) in tables else ParameterKind.HIDDEN for name, p in module.named_parameters()
    }
    return found | {name: ParameterKind.VECTOR for name, shape in shapes_of_one(module).items() if len(shape) < 2}


def shapes_of_one(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter, by name; of one expert's where they are stacked."""
    stacks = {
        id(p) for one in module.modules() if isinstance(one, StackedExperts) for p in one.parameters(recurse=False)
    }
    return {name: tuple(p.shape[1:] if id(p) in stacks else p.shape) for name, p in module.named_parameters()}


def with_ends(
    *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> Callable[[nn.Module], dict[str, ParameterKind]]:
    """`by_shape`, but for the matrices below modules of these names, whole parts of dotted ones: they stand at an end
    of the network, where one side does not grow with the width."""
    ends = [*((end, ParameterKind.INPUT) for end in inputs), *((end, ParameterKind.OUTPUT) for end in outputs)]

    def kinds(module: nn.Module) -> dict[str, ParameterKind]:
        found = by_shape(module)
        for name, kind in found.items():
            if kind is ParameterKind.HIDDEN:
                found[name] = next((at for end, at in ends if f".{end}." in f".{name}."), kind)
        return found

    return kinds
