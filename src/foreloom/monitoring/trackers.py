"""Trackers: mirrors of metrics.jsonl in TensorBoard, Weights & Biases and MLflow.

A tool is imported where a recipe asks for it. What a record is to all of them, by tag, stands at the end.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml

from foreloom.config.loader import flatten
from foreloom.files import write_text
from foreloom.monitoring.environment import FILE_NAME as ENVIRONMENT_NAME
from foreloom.monitoring.record import BenchmarkRecord, StepRecord, ValidationRecord, time_shares

TrackerName = Literal["tensorboard", "wandb", "mlflow", "none"]

IDS_NAME = "trackers.json"
_RECIPE_NAME = "recipe.yaml"
WHOLE_FLOPS = 1e9
"""The axes of TensorBoard and MLflow are of whole numbers: `by_flops/` tags count GFLOPs there."""
MLFLOW_PARAMS = 100
"""MLflow takes so many in one request."""
MLFLOW_CHARACTERS = 500
"""Of a parameter, in its oldest stores."""
_WORTH_FLOPS = ("train/", "validation/", "benchmark")


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


class TensorBoard:
    """Event files in `<run_dir>/tensorboard`. Points of an earlier session from `first_step` on are hidden.

    The axis of FLOPs has a folder of its own, `by_flops`, because hiding works by folder.
    """

    name = "tensorboard"

    def __init__(self, session: Session) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = session.run_dir / "tensorboard"
        is_new = not any(folder.glob("events.*"))
        first = (0, 0) if session.first_step <= 1 else (session.first_step, int(session.flops / WHOLE_FLOPS) + 1)
        self._steps = SummaryWriter(str(folder), purge_step=None if is_new else first[0])
        self._flops = SummaryWriter(str(folder / "by_flops"), purge_step=None if is_new else first[1])
        self._hook, threading.excepthook = threading.excepthook, self._on_thread_error
        for path in session.files:
            self._steps.add_text(path.name, f"```\n{path.read_text(encoding='utf-8')}```", session.first_step - 1)

    def scalars(self, step: int, flops: float, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._steps.add_scalar(tag, value, step)
        for tag, value in by_flops(values).items():
            self._flops.add_scalar(tag, value, int(flops / WHOLE_FLOPS))
        self._steps.flush()
        self._flops.flush()

    def close(self) -> None:
        try:
            self._steps.close()
            self._flops.close()
        finally:
            threading.excepthook = self._hook

    def _on_thread_error(self, error: threading.ExceptHookArgs) -> None:
        """What a writer's thread has failed by it keeps for the next call: its traceback says nothing more."""
        if getattr(error.thread, "exception", None) is not error.exc_value:
            self._hook(error)


class WeightsAndBiases:
    """Weights & Biases: one run of theirs a run folder, over all its sessions. Files lie in `<run_dir>/wandb`;
    `WANDB_MODE=offline` keeps all of it there, for `wandb sync`.

    `step` and `flops` are values of each point and the x-axes of the charts, because W&B refuses points behind the
    newest, which a run resumed from an earlier step makes.
    """

    name = "wandb"

    def __init__(self, session: Session) -> None:
        import wandb

        run_id = session.known_id(self.name) or uuid.uuid4().hex[:12]
        session.keep_id(self.name, run_id)
        self._run = wandb.init(
            project=session.project,
            name=session.run_dir.resolve().name,
            dir=str(session.run_dir),
            id=run_id,
            resume="allow",
            config=dict(session.recipe),
            allow_val_change=True,
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("flops", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self._run.define_metric("by_flops/*", step_metric="flops")
        for path in session.files:
            self._run.save(str(path), base_path=str(session.run_dir), policy="now")

    def scalars(self, step: int, flops: float, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, "flops": flops, **values, **by_flops(values)})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """One run of theirs a run folder, over all its sessions: on the server of MLFLOW_TRACKING_URI or, without it, in a
    data base and a folder in the run folder.

    Of a resumed run MLflow keeps the points that are made twice, and the parameters of its first session.
    """

    name = "mlflow"

    def __init__(self, session: Session) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        folder = session.run_dir.resolve() / "mlflow"
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{folder / 'mlflow.db'}"
            artifacts = (folder / "artifacts").as_uri()
        else:
            artifacts = None
        self._client = MlflowClient(tracking_uri=uri)
        self._run_id = session.known_id(self.name) or self._create(session, artifacts)
        session.keep_id(self.name, self._run_id)
        self._client.update_run(self._run_id, status="RUNNING")
        known = self._client.get_run(self._run_id).data.params
        params = [
            Param(key, str(value)[:MLFLOW_CHARACTERS])
            for key, value in flatten(session.recipe).items()
            if key not in known
        ]
        for first in range(0, len(params), MLFLOW_PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + MLFLOW_PARAMS])
        for path in session.files:
            self._client.log_artifact(self._run_id, str(path))

    def _create(self, session: Session, artifacts: str | None) -> str:
        experiment = self._client.get_experiment_by_name(session.project)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(session.project, artifact_location=artifacts)
        )
        run = self._client.create_run(experiment_id, run_name=session.run_dir.resolve().name)
        return run.info.run_id

    def scalars(self, step: int, flops: float, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(tag, value, now, step) for tag, value in values.items()]
        metrics += [self._metric(tag, value, now, int(flops / WHOLE_FLOPS)) for tag, value in by_flops(values).items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


TRACKERS: Mapping[str, Callable[[Session], Tracker]] = {
    tracker.name: tracker for tracker in (TensorBoard, WeightsAndBiases, MLflow)
}
"""Name in a recipe -> opener."""


def step_scalars(record: StepRecord, *, ema: float) -> dict[str, float]:
    """The scalars of a logging step by tag, the same in every tracker."""
    values = {
        "train/loss": record.loss,
        "train/ema": ema,
        "train/learning_rate": record.learning_rate,
        "train/grad_norm": record.grad_norm,
        "train/skipped_steps": record.num_skipped_steps,
        "throughput/steps_per_second": record.steps_per_second,
        "throughput/rows_per_second": record.steps_per_second * record.rows_per_step,
        "throughput/data_wait_share": record.data_wait_share,
        "throughput/rows": record.num_rows,
        "throughput/flops": record.flops,
    }
    if record.memory_bytes is not None:
        values["memory/allocated_gb"] = record.memory_bytes / 2**30
    if record.mfu is not None:
        values["throughput/mfu"] = record.mfu
    values |= {f"learning_rate/{name}": rate for name, rate in record.learning_rates.items()}
    values |= {f"time/{part}": share for part, share in time_shares(record.seconds_by_part).items()}
    return values | {f"train/{name}": value for name, value in record.figures.items()}


def validation_scalars(record: ValidationRecord) -> dict[str, float]:
    """The scalars of a validation by tag, the same in every tracker."""
    figures = {f"validation/{name}": value for name, value in record.figures.items()}
    return {"validation/loss": record.loss, "validation/best": record.best_loss} | figures


def benchmark_scalars(record: BenchmarkRecord) -> dict[str, float]:
    """The scalars of a benchmark by tag, the same in every tracker: `benchmark/avg_wql`, `benchmark/m4_hourly/mase`."""
    prefix = "benchmark" if record.tier == "lite" else f"benchmark_{record.tier}"
    averages = {
        f"{prefix}/{name if name == 'composite' else f'avg_{name}'}": score for name, score in record.scores.items()
    }
    tasks = {f"{prefix}/{task}/{name}": score for task, its in record.tasks.items() for name, score in its.items()}
    return averages | tasks | {f"{prefix}/seconds": record.seconds, f"{prefix}/training_share": record.training_share}


def by_flops(values: Mapping[str, float]) -> dict[str, float]:
    """Those worth a second curve over the FLOPs spent: how good the model is, not how fast the run."""
    return {f"by_flops/{tag}": value for tag, value in values.items() if tag.startswith(_WORTH_FLOPS)}
