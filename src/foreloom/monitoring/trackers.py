"""Trackers: mirrors of metrics.jsonl in other people's tools, imported only when a recipe asks for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from foreloom.monitoring.record import BenchmarkRecord, StepRecord, ValidationRecord


class Tracker(Protocol):
    """Takes named scalars. Raises OSError where they cannot be written; the monitor warns once and goes on."""

    name: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `<run_dir>/tensorboard`. Points at or after `first_step` from an earlier session are hidden."""

    name = "tensorboard"

    def __init__(self, run_dir: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step if first_step > 1 else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


TRACKERS: Mapping[str, Callable[[Path, int], Tracker]] = {"tensorboard": TensorBoard}
"""Name in a recipe -> opener(run_dir, first_step)."""


def step_scalars(record: StepRecord, *, ema: float) -> dict[str, float]:
    """The scalars of a logging step by tag, the same in every tracker."""
    values = {
        "train/loss": record.loss,
        "train/ema": ema,
        "train/learning_rate": record.learning_rate,
        "train/grad_norm": record.grad_norm,
        "train/skipped_steps": record.num_skipped_steps,
        "throughput/steps_per_second": record.steps_per_second,
        "throughput/samples_per_second": record.steps_per_second * record.samples_per_step,
        "throughput/data_wait_share": record.data_wait_share,
        "throughput/samples": record.samples,
        "throughput/flops": record.flops,
    }
    if record.memory_bytes is not None:
        values["memory/allocated_gb"] = record.memory_bytes / 2**30
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
