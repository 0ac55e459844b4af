"""A recipe's model at another width, depth, rule or learning rate, ready to be stepped in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreloom.config.loader import Recipe
from foreloom.data.loader import BatchLoader, StepBatch
from foreloom.distributed.mesh import ParallelConfig
from foreloom.distributed.parallelize import ParallelModel, parallelize
from foreloom.distributed.process import Process, among_ranks, start
from foreloom.models import registry
from foreloom.models.common.parametrization import ParametrizationConfig
from foreloom.models.family import ModelFamily
from foreloom.run.parametrize import ParameterRow, explained, parametrize, redepthed, resized
from foreloom.run.recipe import data_of, load
from foreloom.training.config import autocast_dtype
from foreloom.training.optimizer import Optimizer, build_optimizer
from foreloom.training.state import LaneCarry
from foreloom.training.step import OptimizerStep
from foreloom.training.stopwatch import Stopwatch

KINDS = ("standard", "mup", "legacy-sqrt", "legacy-geomean")
DEFAULT_BASE = 64


@dataclass(frozen=True)
class Trial:
    """One model and what moves it."""

    family: ModelFamily
    parallel: ParallelModel
    optimizer: Optimizer
    learning_rate: float
    """At the peak; schedules are left out."""
    process: Process
    batch_size: int
    unfolded: Mapping[str, float]
    """By name of a module: what its output is divided by to be as without a folded factor that acts further on."""

    def stepper(self, *, carries: bool) -> OptimizerStep:
        """Updates of this model; `carries`: a recurrent one goes on where its lanes ended."""
        carry = None
        if carries and self.family.carry:
            device = self.process.device
            carry = LaneCarry(self.family.carry(self.parallel.model, self.batch_size, device), self.process)
        stopwatch = Stopwatch(self.process.device)
        return OptimizerStep(self.parallel, self.family, self.optimizer, self.process, stopwatch, carry)


class Bench:
    """What all trials of a recipe share: its data, its device, and the rule's base.

    `base_width` is the recipe's, or `default_base` where it has none.
    """

    def __init__(self, recipe: Recipe, process: Process, *, default_base: int) -> None:
        self.recipe, self.process = recipe, process
        self.family = registry.get(recipe.sections["model"].family)
        self.section, self.data = _without_dropout(recipe.sections["model"]), data_of(recipe)
        self.training, self.optimizer = recipe.sections["training"], recipe.sections["optimizer"]
        config = recipe.sections["parametrization"]
        self.base_width = config.base_width or default_base
        self._config = config
        self.dataset = self.data.open(self.training.seed, batch_size=self.training.batch_size)
        self.loader = BatchLoader(
            self.dataset,
            batch_size=self.training.batch_size,
            micro_batch_size=0 if self.training.micro_batch_size == "auto" else self.training.micro_batch_size,
            num_prefetch=0,
        )

    def config(self, kind: str) -> ParametrizationConfig:
        """The recipe's parametrization where it is of that kind; else one of that kind from the same base."""
        if kind == self._config.kind:
            return self._config
        if kind == "standard":
            return ParametrizationConfig()
        return ParametrizationConfig(kind=kind, base_width=self.base_width, heads=self._config.heads)  # type: ignore[arg-type]

    def section_at(self, *, width: int | None = None, depth: int | None = None) -> Any:
        """The model section at another size."""
        section = self.section if width is None else resized(self.family, self.section, self._config, width)
        return section if depth is None else redepthed(self.family, section, depth)

    def rows(self, kind: str, section: Any) -> list[ParameterRow]:
        """The table of a model."""
        return list(explained(self.family, section, self.data, self.config(kind), self.optimizer).rows.values())

    def trial(self, kind: str, section: Any, *, seed: int, learning_rate: float | None = None) -> Trial:
        """A new model of the section under a rule, from a seed of its own."""
        optimizer = self.optimizer
        if learning_rate is not None:
            optimizer = dataclasses.replace(optimizer, learning_rate=learning_rate)
        scaled = parametrize(self.family, section, self.data, self.config(kind), optimizer)
        model = self.family.build(scaled.section, self.data)
        self.family.initialize(model, seed)
        scaled.scale(model)
        kinds = self.family.kinds(model)
        dtype = autocast_dtype(self.training.precision, self.process.device)
        parallel = parallelize(model, self.family.sharding, ParallelConfig(), self.process, autocast_dtype=dtype)
        parallel.model.train()
        built = build_optimizer(
            optimizer,
            parallel.named_parameters(),
            kinds,
            max_grad_norm=self.training.max_grad_norm,
            multipliers=scaled.multipliers,
        )
        unfolded = {row.name.removesuffix(".weight"): row.fold / row.rule.forward for row in scaled.rows.values()}
        return Trial(
            self.family, parallel, built, optimizer.learning_rate, self.process, self.training.batch_size, unfolded
        )

    def batch(self) -> StepBatch:
        """The first global batch."""
        return self.loader.batch(0)


def _without_dropout(section: Any) -> Any:
    """What is compared between widths is not to be noise."""
    rates = [one.name for one in dataclasses.fields(section) if "dropout" in one.name]
    return dataclasses.replace(section, **dict.fromkeys(rates, 0.0))


def parse_numbers(text: str, what: str, *, least: int = 2) -> list[int]:
    """Whole numbers of a comma separated list, ascending; ValueError for fewer than `least` and for anything else."""
    try:
        numbers = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        raise ValueError(f"{what}: {text!r} is no list of whole numbers; write 64,128,256.") from None
    if len(numbers) < least or numbers[0] < 1:
        raise ValueError(f"{what}: {text!r} has too few to compare; give at least {least}, 64,128,256 for instance.")
    return numbers


def parse_kinds(text: str) -> list[str]:
    """Kinds of parametrization of a comma separated list; ValueError names one that there is not."""
    kinds: Sequence[str] = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"--kinds: {kind!r} is none of {', '.join(KINDS)}.")
    if not kinds:
        raise ValueError(f"--kinds: name at least one of {', '.join(KINDS)}.")
    return list(kinds)


def parse_rates(text: str, learning_rate: float) -> list[float]:
    """log2 of learning rates, of from:to or from:to:step; four octaves each way around `learning_rate` where nothing is
    given. ValueError for anything else."""
    if not text:
        middle = round(math.log2(learning_rate))
        return [float(rate) for rate in range(middle - 4, middle + 5)]
    try:
        low, high, *rest = map(float, text.split(":"))
        (step,) = rest or [1.0]
        num_rates = math.floor((high - low) / step + 1e-9) + 1
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--rates: {text!r} is no from:to or from:to:step; write --rates=-10:-4.") from None
    if step <= 0 or num_rates < 3:
        raise ValueError(f"--rates: {text!r} holds fewer than three rates, too few for a basin.")
    return [low + step * number for number in range(num_rates)]


@contextlib.contextmanager
def standing(path: Path, overrides: Sequence[str], widths: Sequence[int] | None) -> Generator[tuple[Bench, list[int]]]:
    """A recipe's bench on its device, and the widths to compare: those given, or the base width times 1, 2, 4 and 8."""
    recipe = load(path, overrides)
    base = recipe.sections["parametrization"].base_width or (widths[0] if widths else DEFAULT_BASE)
    with among_ranks():
        process = start(recipe.sections["training"].device)
        if process.world_size > 1:
            raise ValueError("foreloom lab mup works in one process; start it without torchrun.")
        yield Bench(recipe, process, default_base=base), list(widths or [base, 2 * base, 4 * base, 8 * base])
