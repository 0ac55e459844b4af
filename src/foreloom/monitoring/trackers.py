"""Trackers: mirrors of metrics.jsonl in other people's tools, imported only when a recipe asks for one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml

from foreloom.files import write_text
from foreloom.monitoring.environment import FILE_NAME as ENVIRONMENT_NAME

TrackerName = Literal["tensorboard", "wandb", "mlflow", "none"]

IDS_NAME = "trackers.json"
_RECIPE_NAME = "recipe.yaml"


class Tracker(Protocol):
    """Takes named scalars on two axes, the step and the FLOPs spent up to it.

    What it raises costs the run a warning, and the tracker: nothing more is told to it.
    """

    name: str

    def scalars(self, step: int, flops: float, values: Mapping[str, float]) -> None: ...

    def close(self) -> None:
        """The session is over; the run may go on in another."""
        ...


@dataclass(frozen=True)
class Session:
    """What a tracker is opened with: a run, new or resumed."""

    run_dir: Path
    project: str
    """W&B's project, MLflow's experiment."""
    first_step: int
    """What an earlier session logged from here on is void."""
    flops: float
    """Spent before that step."""

    @property
    def files(self) -> list[Path]:
        """The recipe and the environment, as far as they are written."""
        return [path for name in (_RECIPE_NAME, ENVIRONMENT_NAME) if (path := self.run_dir / name).is_file()]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe."""
        path = self.run_dir / _RECIPE_NAME
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def known_id(self, tracker: str) -> str | None:
        """By what the tool knows this run; None where it does not yet."""
        path = self.run_dir / IDS_NAME
        return json.loads(path.read_text(encoding="utf-8")).get(tracker) if path.is_file() else None

    def keep_id(self, tracker: str, run_id: str) -> None:
        """For the sessions to come."""
        path = self.run_dir / IDS_NAME
        ids = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_text(path, json.dumps(ids | {tracker: run_id}, indent=2) + "\n")


def require(names: tuple[TrackerName, ...]) -> None:
    """Raises ValueError naming the tracker whose package is not installed, and how to get it."""
    for name in names:
        if name in ("wandb", "mlflow") and find_spec(name) is None:
            raise ValueError(
                f"monitoring.trackers: {name} is not installed; pip install 'foreloom[{name}]', or take it off the list"
            )


def _tensorboard(session: Session) -> Tracker:
    from foreloom.monitoring.tensorboard import TensorBoard

    return TensorBoard(session)


def _wandb(session: Session) -> Tracker:
    from foreloom.monitoring.weights_and_biases import WeightsAndBiases

    return WeightsAndBiases(session)


def _mlflow(session: Session) -> Tracker:
    from foreloom.monitoring.mlflow_store import MLflow

    return MLflow(session)


TRACKERS: Mapping[str, Callable[[Session], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
"""Name in a recipe -> opener."""
