"""Named scalars: what a record is to every tracker, by tag."""

from __future__ import annotations

from collections.abc import Mapping

from foreloom.monitoring.record import BenchmarkRecord, StepRecord, ValidationRecord
from foreloom.monitoring.time_parts import shares

_BY_FLOPS = ("train/", "validation/", "benchmark")


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
    if record.mfu is not None:
        values["throughput/mfu"] = record.mfu
    values |= {f"time/{part}": share for part, share in shares(record.seconds_by_part).items()}
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
    return {f"by_flops/{tag}": value for tag, value in values.items() if tag.startswith(_BY_FLOPS)}
