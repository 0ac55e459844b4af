"""How initial values, learning rates and factors follow a model's width and depth: the rules, and a family's hooks.

m is a width in units of the base model's, m_in and m_out those of the two sides of a matrix, m_L the depth in units of
the base model's. At the base model's size every multiplier is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from foreloom.config.section import section

Update = Literal["adamw", "muon", "sgd"]
HeadGrowth = Literal["more", "wider"]
_ALPHA = {"none": 0.0, "depth-mup": 0.5, "completep": 1.0}


@section
class ParametrizationConfig:
    """By what rule settings of a small model, its learning rate above all, hold for a larger one."""

    kind: Literal["standard", "mup", "legacy-sqrt", "legacy-geomean"] = "standard"
    """standard: the family's own initial values and one learning rate. mup: maximal update parametrization (Yang et al.
    2022, table 8), each kind of parameter by a rule of its own. legacy-sqrt: every learning rate over the root of the
    width; legacy-geomean: embeddings by a geometric mean and logits times the width. The two legacy ones are there to
    be compared with: they fail the coordinate check."""
    base_width: Annotated[int, Field(ge=1)] | None = None
    """Width of the base model, which is what `standard` makes of it: settings found there hold for every width."""
    heads: HeadGrowth = "more"
    """What a wider model has. more: more attention heads of the same width; wider: as many heads, each wider."""
    output_scale: Annotated[float, Field(gt=0)] = 1.0
    """mup only. What the head gives is multiplied by this at every width (alpha_output of Yang et al. 2022), to be
    tuned at the base width: a wide model begins with smaller logits than the base, and one that begins with too small
    ones is slow to learn."""
    weight_decay: Literal["scaled", "independent"] = "scaled"
    """mup only. scaled: learning rate times weight decay is as in the base model; independent: optimizer.weight_decay
    itself is what an update at the schedule's peak takes off, whatever the learning rate (Wortsman et al. 2024)."""
    depth: Literal["none", "depth-mup", "completep"] = "none"
    """mup only: what a deeper model's branches are multiplied by. depth-mup: m_L^-1/2 (Yang et al. 2023); completep:
    m_L^-1 (Dey et al. 2025), by which the learning rate holds for other depths too; none: as they are."""
    base_depth: Annotated[int, Field(ge=1)] | None = None
    """Blocks of the base model, with a rule for depth."""

    def __post_init__(self) -> None:
        if self.kind == "standard":
            idle = ("base_width", "heads", "output_scale", "weight_decay", "depth", "base_depth")
            self._refuse(idle, "with kind: standard; remove it, or choose mup")
        if self.kind.startswith("legacy"):
            self._refuse(
                ("output_scale", "weight_decay", "depth", "base_depth"),
                f"with kind: {self.kind}; remove it, or choose mup",
            )
        if self.kind != "standard" and self.base_width is None:
            raise ValueError(f"kind: {self.kind} needs base_width, the width whose settings hold for all (64 to 256)")
        if (self.depth == "none") != (self.base_depth is None):
            raise ValueError("depth and base_depth go together: set both, or neither")

    def _refuse(self, names: Sequence[str], why: str) -> None:
        for name in names:
            if getattr(self, name) != getattr(type(self), name, None):
                raise ValueError(f"{name} has no effect {why}")

    @property
    def alpha(self) -> float:
        """A branch is multiplied by m_L^-alpha."""
        return _ALPHA[self.depth]


class ScaledKind(StrEnum):
    """What a parameter is by which of its sides grow with the width."""

    INPUT = "input"
    """A matrix whose outputs grow: an embedding, the first projection."""
    HIDDEN = "hidden"
    """Both sides grow."""
    OUTPUT = "output"
    """A matrix whose inputs grow: a head, a router."""
    TIED = "tied"
    """A table that is embedding and head: its logits are divided by m in the forward."""
    VECTOR = "vector"
    """A bias or a gain that grows."""
    SCALAR = "scalar"
    """Nothing grows."""


class Growth(NamedTuple):
    """How much larger a parameter is than its counterpart in the base model."""

    fan_in: float = 1.0
    """m_in: of the inputs of a matrix."""
    fan_out: float = 1.0
    """m_out: of its outputs; of a vector, its length."""
    longest: float = 1.0
    """Of the longer side, which Muon's update goes by."""


class Multipliers(NamedTuple):
    """Of what the base model's parameter has."""

    init: float = 1.0
    """Of the standard deviation of its initial values."""
    learning_rate: float = 1.0
    epsilon: float = 1.0
    """Of AdamW."""
    weight_decay: float = 1.0
    forward: float = 1.0
    """Of what comes out of it."""
    gradient: float = 1.0
    """Of its gradient, in the norm that gradients are clipped by."""

    def folded(self, factor: float, update: Update) -> Multipliers:
        """Those of a W' = factor W that trains exactly as W with `factor` in the forward: AdamW and Muon move it by
        `factor` times as much, SGD, whose gradient is 1 / factor of it, by the square; decay stays a share of it."""
        rate = factor**2 if update == "sgd" else factor
        return Multipliers(
            self.init * factor,
            self.learning_rate * rate,
            self.epsilon / factor,
            self.weight_decay / rate,
            gradient=self.gradient * factor,
        )


def mup(kind: ScaledKind, growth: Growth, update: Update, *, depth: float = 1.0, alpha: float = 0.0) -> Multipliers:
    """Maximal update parametrization in the form with multipliers (Yang et al. 2022, tables 3 and 8); of a tied table
    the learning rate of an embedding and logits / m, no mean of the two.

    `depth` (m_L) and `alpha` are those of a parameter inside a residual branch that is multiplied by m_L^-alpha: its
    change must then add up to the same over all branches (Dey et al. 2025, table 1). Muon's update has a spectral norm
    of about sqrt(longest), where the change of a matrix is to have sqrt(m_out / m_in) (Yang et al. 2023).
    """
    m_in, m_out, longest = growth
    init = forward = epsilon = 1.0
    match kind:
        case ScaledKind.HIDDEN:
            init, epsilon, adam, sgd = m_in**-0.5, 1 / m_out, 1 / m_in, m_out / m_in
        case ScaledKind.OUTPUT:
            forward, adam, sgd = 1 / m_in, 1.0, m_in
        case ScaledKind.SCALAR:
            adam = sgd = 1.0
        case _:
            adam, sgd = 1.0, m_out
    rate = {"adamw": adam, "sgd": sgd, "muon": (m_out / (m_in * longest)) ** 0.5 / forward}[update]
    deeper, small = 1.0, 1.0
    if kind not in (ScaledKind.INPUT, ScaledKind.TIED):
        deeper = depth ** ((2 if update == "sgd" else 1) * alpha - 1) if alpha else 1.0
        small = depth**-alpha if kind in (ScaledKind.HIDDEN, ScaledKind.OUTPUT) else 1.0
    return Multipliers(init, rate * deeper, epsilon * small, 1 / rate, forward)


def legacy_sqrt(width: float) -> Multipliers:
    """Every learning rate over the root of the width; initial values are the family's own."""
    return Multipliers(learning_rate=width**-0.5)


def legacy_geomean(kind: ScaledKind, growth: Growth, width: float) -> Multipliers:
    """Rates over the width for all but the head, whose logits are multiplied by it; of a tied table the geometric mean
    of the two rates."""
    match kind:
        case ScaledKind.INPUT:
            return Multipliers(init=width**-0.5, learning_rate=1 / width)
        case ScaledKind.TIED:
            return Multipliers(init=width**-0.5, learning_rate=width**-0.5)
        case ScaledKind.OUTPUT:
            return Multipliers(init=1 / width, forward=width)
        case ScaledKind.HIDDEN:
            return Multipliers(init=growth.fan_in**-0.5, learning_rate=1 / width)
        case ScaledKind.VECTOR:
            return Multipliers(learning_rate=1 / width)
        case ScaledKind.SCALAR:
            return Multipliers()


class ForwardFactors(NamedTuple):
    """What a family's forward multiplies by, as its architecture has it."""

    head_width: int
    attention: float
    """Of the scores, beside what the queries' values carry."""
    logits: float = 1.0
    """Of a tied head's."""
    embedding: float = 1.0
    """Of an embedding's rows."""


class Factors(NamedTuple):
    """Factors on top of those that a forward has already."""

    attention: float = 1.0
    logits: float = 1.0
    embedding: float = 1.0
    branch: float = 1.0
    """Of each residual branch where it joins the stream."""


def _nothing_drawn(module: nn.Module) -> Mapping[str, float]:
    return {}


def _untied(module: nn.Module) -> str | None:
    return None


@dataclass(frozen=True)
class ScalingHooks:
    """What a family says of its models of other widths and depths. Patterns are ends of names, as of LoRA's modules.

    A factor that the forward has no setting for is folded into the parameters it acts on, exactly; so published folders
    stay what they are.
    """

    width: str
    """The setting of the model section that is the width of the residual stream."""
    depths: tuple[str, ...]
    """Settings that count blocks, the first of them the depth."""
    resized: Callable[[Any, int, HeadGrowth], Any]
    """resized(model section, width, heads) -> the section with that width, and feed-forwards and heads to go with it;
    ValueError for a width that no head divides."""
    forward: Callable[[nn.Module], ForwardFactors]
    """forward(module): its own factors."""
    stds: Callable[[nn.Module], Mapping[str, float]] = _nothing_drawn
    """stds(module): the standard deviation of each parameter that begins at random, by name."""
    tied: Callable[[nn.Module], str | None] = _untied
    """tied(module): the table that is embedding and head, where there is one."""
    queries: tuple[str, ...] = ()
    """Projections that a factor of the scores is folded into."""
    branch_ends: tuple[str, ...] = ()
    """Projections that end a residual branch; a factor of the branch is folded into them. Empty: there are none."""
    last_norm: tuple[str, ...] = ()
    """What a factor of a tied head's logits is folded into: gain and bias of the norm before it."""
    transposed: tuple[str, ...] = ()
    """Projections whose matrices are (inputs, outputs)."""
    with_factors: Callable[[Any, Factors], Any] | None = None
    """with_factors(model section, factors) -> the section whose forward has them, for families with such settings."""
    logits: Callable[[nn.Module, Mapping[str, Any]], Tensor] | None = None
    """logits(module, forward's arguments): a forward of all modules, and what the head says, where none gives it."""


def heads_of(width: int, num_heads: int, head_width: int, growth: HeadGrowth, *, even: bool) -> int:
    """Heads that divide `width` for a model that has `num_heads` of `head_width`: the number kept (wider), or the width
    of one as nearly as it goes (more). `even`: rotary positions turn pairs. ValueError where none divides."""
    fitting = [n for n in range(1, width + 1) if width % n == 0 and not (even and (width // n) % 2)]
    if growth == "wider":
        if num_heads in fitting:
            return num_heads
        raise ValueError(
            f"a width of {width} does not divide into {num_heads} heads{' of an even width' if even else ''}; choose "
            f"a multiple of {num_heads * (2 if even else 1)}, or parametrization.heads: more."
        )
    if not fitting:
        raise ValueError(f"a width of {width} has no heads of an even width; choose an even one.")
    return min(fitting, key=lambda n: (abs(width / n - head_width), n))


def scaled_size(size: int, ratio: float, multiple: int = 1) -> int:
    """`size` times `ratio`, to a multiple, at least one."""
    return max(round(size * ratio / multiple), 1) * multiple
