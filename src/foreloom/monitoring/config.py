"""The recipe's `monitoring` section."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from foreloom.config.section import section
from foreloom.monitoring.trackers import TrackerName

DEFAULT_PROJECT = "foreloom"


@section
class MonitoringConfig:
    """What a run says about itself, and where. metrics.jsonl and training.log are always written."""

    log_steps: Annotated[int, Field(ge=1)] = 100
    """Steps between log lines; the device is read at these steps only."""
    health_steps: Annotated[int, Field(ge=0)] = 1000
    """Steps between health reports, each printed with the next log line; 0: none."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Tools that mirror metrics.jsonl: a list of `tensorboard`, `wandb` (Weights & Biases), `mlflow`, or `[none]`."""
    project: Annotated[str, Field(min_length=1)] | None = None
    """W&B's project and MLflow's experiment; unset: foreloom."""
    peak_flops: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """FLOPs a second one device can do in bf16, for model FLOPs utilisation; unset: known by the name of the GPU."""

    def __post_init__(self) -> None:
        if "none" in self.trackers and len(self.trackers) > 1:
            raise ValueError(f"trackers: `none` stands alone, but the list is {list(self.trackers)}")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers: each may be named once, but the list is {list(self.trackers)}")
        if self.project is not None and not {"wandb", "mlflow"} & set(self.trackers):
            raise ValueError("project has no effect without wandb or mlflow among the trackers; remove it")

    def implied(self) -> dict[str, Any]:
        return {"project": DEFAULT_PROJECT} if {"wandb", "mlflow"} & set(self.trackers) else {}
