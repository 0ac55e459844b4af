"""A recipe's model under its parametrization: every parameter's kind, initial values and multipliers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn

from foreloom.models import registry
from foreloom.models.common.count import ParameterKind, shapes_of_one
from foreloom.models.common.lora import fits
from foreloom.models.common.parametrization import (
    Factors,
    Growth,
    Multipliers,
    ParametrizationConfig,
    ScaledKind,
    ScalingHooks,
    Update,
    legacy_geomean,
    legacy_sqrt,
    mup,
)
from foreloom.models.family import ModelFamily
from foreloom.training.optimizer import OptimizerConfig


class ParameterRow(NamedTuple):
    """A parameter under a parametrization."""

    name: str
    kind: ScaledKind
    shape: tuple[int, ...]
    std: float | None
    """Of its initial values; None where they are constant."""
    update: Update
    rule: Multipliers
    """As the table has them, its factor in the forward apart."""
    fold: float
    """The factor of the forward that its values carry: 1 where a setting of the forward has it."""
    multipliers: Multipliers
    """What it is trained by: the rule with the factor folded in."""
    init_scale: float
    """What the family's own initial values are multiplied by."""


@dataclass(frozen=True)
class Parametrized:
    """A recipe's model under its parametrization."""

    section: Any
    """The model section, with the factors of the forward where it has settings for them."""
    rows: Mapping[str, ParameterRow]
    """Of every parameter, by name; empty for `standard`, which leaves all as it is."""
    factors: Factors
    """Of the forward, beside its own: in the section's settings, or folded into parameters."""

    @property
    def multipliers(self) -> dict[str, Multipliers]:
        """What the optimizer must know."""
        return {name: row.multipliers for name, row in self.rows.items()}

    @torch.no_grad()
    def scale(self, module: nn.Module) -> None:
        """Bring the family's own initial values to those of the parametrization, in place."""
        for name, parameter in module.named_parameters():
            if self.rows and self.rows[name].init_scale != 1:
                parameter.mul_(self.rows[name].init_scale)


def scaling_of(family: ModelFamily, section: Any) -> ScalingHooks:
    """The family's hooks; ValueError where it has none, and where a model is not new."""
    if family.scaling is None:
        known = ", ".join(name for name in registry.names() if registry.get(name).scaling)
        raise ValueError(f"parametrization.kind: the family {family.name} has no rules for its width; {known} have.")
    if section.pretrained is not None:
        raise ValueError(
            "parametrization.kind: a pretrained model begins with weights of its own; give model.size for a new one, "
            "or leave parametrization out."
        )
    return family.scaling


def width_of(family: ModelFamily, section: Any) -> int:
    """Width of the residual stream."""
    return section.new_values()[scaling_of(family, section).width]


def depth_of(family: ModelFamily, section: Any) -> int:
    """Number of blocks."""
    return section.new_values()[scaling_of(family, section).depths[0]]


def resized(family: ModelFamily, section: Any, config: ParametrizationConfig, width: int) -> Any:
    """The model section at another width; itself at its own."""
    if width == width_of(family, section):
        return section
    return scaling_of(family, section).resized(section, width, config.heads)


def redepthed(family: ModelFamily, section: Any, depth: int) -> Any:
    """The model section at another depth, other counts of blocks in proportion."""
    values, ratio = section.new_values(), depth / depth_of(family, section)
    if ratio == 1:
        return section
    names = [name for name in scaling_of(family, section).depths if name in values]
    counts = {name: max(round(values[name] * ratio), 1) for name in names}
    return dataclasses.replace(section, **counts)


def parametrize(
    family: ModelFamily, section: Any, data: Any, config: ParametrizationConfig, optimizer: OptimizerConfig
) -> Parametrized:
    """The model section and every parameter's multipliers.

    The base model, and one twice as wide, are built on the meta device: what differs between them grows with the width.
    ValueError for a family or a section that the rules do not fit.
    """
    if config.kind == "standard":
        return Parametrized(section, {}, Factors())
    return Parametrized(*_rows(family, section, data, config, optimizer))


def explained(
    family: ModelFamily, section: Any, data: Any, config: ParametrizationConfig, optimizer: OptimizerConfig
) -> Parametrized:
    """`parametrize` for people: with rows for `standard` too, where the model itself is the base."""
    if config.kind == "standard":
        config = dataclasses.replace(config, kind="legacy-sqrt", base_width=width_of(family, section))
    return Parametrized(*_rows(family, section, data, config, optimizer))


def _on_meta(family: ModelFamily, section: Any, data: Any) -> nn.Module:
    with torch.device("meta"):
        return family.build(section, data)


def _rows(
    family: ModelFamily, section: Any, data: Any, config: ParametrizationConfig, optimizer: OptimizerConfig
) -> tuple[Any, dict[str, ParameterRow], Factors]:
    hooks = scaling_of(family, section)
    assert config.base_width is not None
    if config.depth != "none" and not hooks.branch_ends:
        raise ValueError(f"parametrization.depth: a model of the family {family.name} has no residual branches.")
    base_section = resized(family, section, config, config.base_width)
    if config.base_depth is not None:
        base_section = redepthed(family, base_section, config.base_depth)
    own, base = _on_meta(family, section, data), _on_meta(family, base_section, data)
    wider = _on_meta(family, hooks.resized(base_section, 2 * config.base_width, config.heads), data)
    width = width_of(family, section) / config.base_width
    depth = depth_of(family, section) / (config.base_depth or depth_of(family, section))
    factors = _factors(hooks, config, own, base, width, depth)
    if hooks.with_factors is not None:
        section = hooks.with_factors(section, factors)
    own_stds, base_stds = hooks.stds(own), hooks.stds(base)
    kinds, tied = family.kinds(own), hooks.tied(own)
    shapes, base_shapes, wider_shapes = (shapes_of_one(one) for one in (own, base, wider))
    tables = {id(one.weight) for one in own.modules() if isinstance(one, nn.Embedding)}
    rows = {}
    for name, parameter in own.named_parameters():
        like, block = _counterpart(name, family.sharding.blocks, base_shapes)
        turned = id(parameter) in tables or any(fits(name, f"{one}.weight") for one in hooks.transposed)
        kind = _kind(base_shapes[like], wider_shapes[like], turned=turned)
        kind = ScaledKind.TIED if name == tied else kind
        growth = _growth(shapes[name], base_shapes[like], turned=turned)
        update: Update = optimizer.name
        if update == "muon" and kinds[name] is not ParameterKind.HIDDEN:
            update = "adamw"
        rule = _rule(config, kind, growth, update, width, depth if block else 1.0)
        if kind is ScaledKind.OUTPUT and not block:  # a router is in one
            rule = rule._replace(forward=rule.forward * config.output_scale)
        fold = _fold(hooks, name, rule, factors, is_tied=tied is not None)
        std, init_scale = own_stds.get(name), fold
        if std is not None and config.kind != "legacy-sqrt":
            target = base_stds[like] * rule.init
            std, init_scale = target, fold * (target / std)
        trained = rule.folded(fold, update) if fold != 1 else rule._replace(forward=1.0)
        if config.weight_decay == "independent":
            trained = trained._replace(weight_decay=1 / (optimizer.learning_rate * trained.learning_rate))
        rows[name] = ParameterRow(
            name, kind, tuple(parameter.shape),
            None if std is None else std * fold, update, rule, fold, trained, init_scale,
        )  # fmt: skip
    return section, rows, factors


def _factors(
    hooks: ScalingHooks, config: ParametrizationConfig, own: nn.Module, base: nn.Module, width: float, depth: float
) -> Factors:
    """What the forward lacks of the rule."""
    if config.kind == "legacy-sqrt":
        return Factors()
    at, at_base = hooks.forward(own), hooks.forward(base)
    has_tied = hooks.tied(own) is not None
    if config.kind == "legacy-geomean":
        return Factors(logits=width if has_tied or hooks.with_factors else 1.0)
    logits = 1.0
    if has_tied:
        logits = config.output_scale * at_base.logits / width / at.logits
    elif hooks.with_factors is not None:
        logits = config.output_scale / width
    return Factors(
        attention=at_base.attention * at_base.head_width / at.head_width / at.attention,
        logits=logits,
        embedding=at_base.embedding / at.embedding,
        branch=depth**-config.alpha,
    )


def _rule(
    config: ParametrizationConfig, kind: ScaledKind, growth: Growth, update: Update, width: float, depth: float
) -> Multipliers:
    match config.kind:
        case "legacy-sqrt":
            return legacy_sqrt(width)
        case "legacy-geomean":
            return legacy_geomean(kind, growth, width)
        case _:
            return mup(kind, growth, update, depth=depth, alpha=config.alpha)


def _fold(hooks: ScalingHooks, name: str, rule: Multipliers, factors: Factors, *, is_tied: bool) -> float:
    """The factors that this parameter carries."""
    if hooks.with_factors is not None:
        return 1.0
    module = name.rpartition(".")[0]
    of = lambda patterns: any(fits(module, one) or fits(name, one) for one in patterns)
    fold = rule.forward
    fold *= factors.attention if of(hooks.queries) else 1.0
    fold *= factors.branch if of(hooks.branch_ends) else 1.0
    fold *= factors.logits if is_tied and of(hooks.last_norm) else 1.0
    return fold


def _counterpart(name: str, blocks: Sequence[str], shapes: Mapping[str, Any]) -> tuple[str, str | None]:
    """The name in the base model of the parameter that this one corresponds to, and the block it is in: a block beyond
    the base model's last corresponds to that."""
    parts = name.split(".")
    prefixes = [".".join(parts[:n]) for n in range(1, len(parts))]
    block = next((one for one in prefixes if any(fnmatchcase(one, pattern) for pattern in blocks)), None)
    if block is None or name in shapes:
        return name, block
    stack, _, number = block.rpartition(".")
    rest = name.removeprefix(block)
    like = [f"{stack}.{n}{rest}" for n in range(int(number), -1, -1)]
    return next(one for one in like if one in shapes), block


def _sides(shape: Sequence[int], turned: bool) -> tuple[int, int]:
    """Outputs and inputs of a matrix, or of each in a stack."""
    return (shape[-1], shape[-2]) if turned else (shape[-2], shape[-1])


def _kind(base: Sequence[int], wider: Sequence[int], *, turned: bool) -> ScaledKind:
    if len(base) < 2:
        return ScaledKind.VECTOR if tuple(base) != tuple(wider) else ScaledKind.SCALAR
    (base_out, base_in), (wider_out, wider_in) = _sides(base, turned), _sides(wider, turned)
    match wider_out > base_out, wider_in > base_in:
        case True, True:
            return ScaledKind.HIDDEN
        case True, False:
            return ScaledKind.INPUT
        case False, True:
            return ScaledKind.OUTPUT
        case _:
            return ScaledKind.SCALAR


def _growth(shape: Sequence[int], base: Sequence[int], *, turned: bool) -> Growth:
    if len(shape) < 2:
        return Growth(fan_out=shape[0] / base[0]) if len(shape) else Growth()
    (num_out, num_in), (base_out, base_in) = _sides(shape, turned), _sides(base, turned)
    return Growth(num_in / base_in, num_out / base_out, max(num_in, num_out) / max(base_in, base_out))
