"""The recipe's `benchmark` section: what a model is scored on while it trains, in two tiers, and how often."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from foreloom.config.section import section
from foreloom.evaluation import suites
from foreloom.evaluation.tasks import EvaluationTask, read_tasks
from foreloom.monitoring.record import Tier, score_name

BENCHMARK_SCORES = ("wql", "mase", "composite")
"""What the lite tier gets; those of the extended one are called extended_wql and so on."""


@section
class BenchmarkConfig:
    """Forecasts scored as the model trains: a lite tier often, an extended one rarely."""

    steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps between benchmarks; one after the last step comes besides, and one before the first where the
    model is pretrained. 0: never."""
    tasks: str | None = None
    """A tasks file, as `foreloom evaluate --tasks` reads it."""
    suite: str | None = None
    """Or the name of a suite (chronos-lite)."""
    data_root: str | None = None
    """The folder below which the data of suites lie, and the relative paths of tasks begin."""
    extended_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps between benchmarks of the extended tier, first and last ones as above. 0: never."""
    extended_tasks: str | None = None
    """The tasks file of the extended tier."""
    extended_suite: str | None = None
    """Or its suite."""
    metric: Literal["wql", "mase", "composite"] = "wql"
    """The score of the lite tier that says which model is best, a mean over its tasks; composite weighs the two."""
    weights: tuple[float, float] = (0.6, 0.4)
    """Of wql and of mase in the composite score."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Rows of one forward. Scores are those of `foreloom evaluate` with the same --batch-size, to rounding."""

    def __post_init__(self) -> None:
        if not self.steps:
            idle = [name for name, field in self._defaults().items() if getattr(self, name) != field]
            if idle:
                have = "has" if len(idle) == 1 else "have"
                raise ValueError(
                    f"{' and '.join(idle)} {have} no effect while benchmark.steps is 0; set it, or remove them"
                )
            return
        _check_source("", self.steps, self.tasks, self.suite)
        _check_source("extended_", self.extended_steps, self.extended_tasks, self.extended_suite)
        if min(self.weights) < 0 or not sum(self.weights):
            raise ValueError(f"weights must not be negative nor all 0, got {list(self.weights)}")

    def tiers(self) -> dict[Tier, int]:
        """The tiers in use and the steps between their benchmarks."""
        every: dict[Tier, int] = {"lite": self.steps, "extended": self.extended_steps}
        return {tier: steps for tier, steps in every.items() if steps}

    def metrics(self) -> list[str]:
        """Names of all scores that checkpoints get."""
        return [score_name(tier, name) for tier in self.tiers() for name in BENCHMARK_SCORES]

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        fields = cls.__dataclass_fields__  # type: ignore[attr-defined]
        return {name: field.default for name, field in fields.items() if name != "steps"}


def tier_tasks(config: BenchmarkConfig) -> dict[Tier, list[EvaluationTask]]:
    """The tasks of each tier in use.

    Raises ValueError for a suite or tasks file with errors and where the data of a task are missing, listing them.
    """
    sources: dict[Tier, tuple[str | None, str | None]] = {
        "lite": (config.tasks, config.suite),
        "extended": (config.extended_tasks, config.extended_suite),
    }
    return {tier: _tasks(*sources[tier], config.data_root) for tier in config.tiers()}


def _tasks(tasks: str | None, suite_name: str | None, data_root: str | None) -> list[EvaluationTask]:
    if tasks is not None:
        return read_tasks(tasks, data_root)
    assert suite_name is not None
    suite = suites.load(suite_name)
    root = data_root or (os.environ.get(suite.variable) if suite.variable else None)
    if not root:
        raise ValueError(f"{suite.name}: say in benchmark.data_root where its data sets lie.")
    found, missing = suites.suite_tasks(suite_name, root)
    if missing:
        raise ValueError(suites.missing_sentence(suite, missing, root))
    return found


def _check_source(prefix: str, steps: int, tasks: str | None, suite: str | None) -> None:
    if steps and (tasks is None) == (suite is None):
        raise ValueError(f"give either {prefix}tasks or {prefix}suite: what the model is to be scored on")
    if not steps and (tasks or suite):
        raise ValueError(f"{prefix}{'tasks' if tasks else 'suite'} has no effect while {prefix}steps is 0; set it")


def is_file_of_tasks(suite: str) -> bool:
    """Is this `suite` a file of the user's own, rather than a name?"""
    return Path(suite).suffix in (".yaml", ".yml")
