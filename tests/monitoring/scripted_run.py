"""A run told step by step, for tests of what a monitor makes of it."""

from __future__ import annotations

import math
from typing import Any

from foreloom.monitoring.record import BenchmarkRecord, DataRecord, StepRecord, ValidationRecord

TOTAL_STEPS = 4000


def step_record(step: int, **changes: Any) -> StepRecord:
    """Of a mixture of experts on a GPU that waits for its data."""
    values: dict[str, Any] = {
        "step": step,
        "loss": 2.0 + 8.0 * math.exp(-step / 600),
        "grad_norm": 0.9 + 0.3 * math.sin(step / 70),
        "learning_rate": 1e-3 * min(1.0, step / 1000),
        "num_rows": step * 256,
        "rows_per_step": 256.0,
        "steps_per_second": 4.0,
        "seconds": step / 4,
        "memory_bytes": 20 * 2**30,
        "memory_total_bytes": 80 * 2**30,
        "memory_allocated_bytes": 16 * 2**30,
        "memory_reserved_bytes": 24 * 2**30,
        "data_wait_share": 0.4,
        "flops": step * 1e12,
        "num_clipped_steps": step // 10 * 6,
        "num_non_finite_steps": step // 1000,
        "step_seconds_mean": 0.25,
        "step_seconds_p50": 0.24,
        "step_seconds_p95": 0.31,
        "seconds_by_part": {
            "data_wait": 10.0, "forward_backward": 12.0, "optimizer": 2.0, "communication": 0.0, "evaluation": 1.0,
            "checkpoint": 0.0, "other": 0.5,
        },
        "mfu": 0.123,
        "figures": {"forecast_loss": 0.4127, "aux_loss": 2.013},
        "loads": {"expert_load": [[100.0, 100.0, 100.0, 100.0], [300.0, 100.0, 0.0, 0.0]]},
        "data": DataRecord(
            num_series=12_345, mapped_bytes=6 * 2**30, build_seconds=0.1, queue_depth=4, queue_fill=0.25, num_ready=1
        ),
    }  # fmt: skip
    return StepRecord(**(values | changes))


def plain_record(step: int, **changes: Any) -> StepRecord:
    """Of a dense model on a CPU, with nothing beside what every run has."""
    return StepRecord(
        step=step, loss=1.0, grad_norm=0.5, learning_rate=1e-4, num_rows=step, rows_per_step=1.0,
        steps_per_second=2.0, seconds=step / 2, **changes,
    )  # fmt: skip


VALIDATION = ValidationRecord(step=900, loss=0.51, best_loss=0.48, best_step=600, num_in_vain=1, patience=5)

BENCHMARK = BenchmarkRecord(
    step=800,
    tier="lite",
    scores={"wql": 0.0841, "mase": 0.9782, "composite": 0.4417},
    tasks={"m4_hourly": {"wql": 0.0265, "mase": 0.8105}, "nn5": {"wql": 0.1417, "mase": 1.1459}},
    metric="wql",
    best_score=0.0811,
    best_step=400,
    previous=None,
    seconds=12.0,
    training_share=0.05,
)
