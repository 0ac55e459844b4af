"""What happens between two log lines: counts and clocks on the host, losses on the device until they are read, and what
the data engine did."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foreloom.data.loader import BatchLoader
from foreloom.monitoring.environment import utilisation
from foreloom.monitoring.record import DataRecord, StepRecord
from foreloom.training.state import RunProgress
from foreloom.training.step import RunningTally, StepFigures
from foreloom.training.stopwatch import Stopwatch, training_seconds

NUM_STEP_TIMES = 200
"""The newest steps, whose percentiles are logged."""


@dataclass(frozen=True)
class StepOutcome:
    """One step as read from the device."""

    step: int
    first_sample: int
    next_sample: int
    loss: float
    grad_norm: float
    count: float
    """Loss terms of the global batch."""

    @property
    def is_applied(self) -> bool:
        """Did the step change the weights?"""
        return self.count > 0 and self.is_finite

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    @property
    def samples(self) -> tuple[int, int]:
        """First and last of its samples in the stream."""
        return self.first_sample, self.next_sample - 1

    @property
    def why_skipped(self) -> str:
        """A sentence for a step that was not applied."""
        reason = (
            f"loss {self.loss}, gradient norm {self.grad_norm}"
            if self.count
            else "none of its samples has an observed target"
        )
        return f"Step {self.step:,} changed nothing: {reason} (samples {self.samples[0]} to {self.samples[1]})."


class LogInterval:
    """The steps since the previous log line. `num_devices` share the work, each with a peak of `peak_flops` a second
    (None: not known)."""

    def __init__(
        self, device: torch.device, num_devices: int, flops_per_row: float, peak_flops: float | None = None
    ) -> None:
        self.tally = RunningTally(device)
        self.stopwatch = Stopwatch(device)
        self._device, self._num_devices = device, num_devices
        self._flops_per_row, self._peak_flops = flops_per_row, peak_flops
        self._on_device: list[Tensor] = []
        self._steps: list[tuple[int, int, int]] = []
        self._step_seconds: deque[float] = deque(maxlen=NUM_STEP_TIMES)
        self._next_sample = 0
        self._num_rows = 0
        self._num_steps = 0

    @property
    def is_empty(self) -> bool:
        """No step since the previous log line."""
        return self._num_steps == 0

    def add(self, step: int, first_sample: int, next_sample: int, num_rows: int, figures: StepFigures) -> None:
        """Note a step; what it left on the device is not looked at."""
        self._on_device.append(figures.totals)
        self.tally.add(figures.tally, figures.applied)
        self._steps.append((step, first_sample, next_sample))
        self._next_sample = next_sample
        self._num_rows += num_rows
        self._num_steps += 1
        self.stopwatch.end_step()

    def read(self) -> list[StepOutcome]:
        """The outcomes not read yet. Waits for the device."""
        if not self._on_device:
            return []
        values = torch.stack(self._on_device).tolist()
        outcomes = [StepOutcome(*where, *figures) for where, figures in zip(self._steps, values, strict=True)]
        self._on_device, self._steps = [], []
        return outcomes

    def record(
        self,
        progress: RunProgress,
        *,
        grad_norm: float,
        learning_rate: float,
        learning_rates: Mapping[str, float],
        figures: Mapping[str, float],
        loads: Mapping[str, list[list[float]]],
        data: DataRecord,
    ) -> StepRecord:
        """The log line's figures; a new interval begins."""
        lap = self.stopwatch.read()
        seconds = max(training_seconds(lap), 1e-9)
        self._step_seconds.extend(lap.step_seconds)
        p50, p95 = np.percentile(self._step_seconds, [50, 95]).tolist()
        flops, peak = self._num_rows * self._flops_per_row, self._peak_flops
        record = StepRecord(
            step=progress.step,
            loss=progress.loss,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            learning_rates=learning_rates,
            num_rows=progress.num_rows,
            loss_terms=progress.loss_terms,
            rows_per_step=self._num_rows / self._num_steps,
            steps_per_second=self._num_steps / seconds,
            seconds=progress.seconds,
            **_memory(self._device),
            data_wait_share=lap.seconds_by_part["data_wait"] / seconds,
            flops=progress.flops,
            num_skipped_steps=progress.num_skipped_steps,
            next_sample=self._next_sample,
            num_clipped_steps=progress.num_clipped_steps,
            num_non_finite_steps=progress.num_non_finite_steps,
            step_seconds_mean=float(np.mean(self._step_seconds)),
            step_seconds_p50=p50,
            step_seconds_p95=p95,
            seconds_by_part=lap.seconds_by_part,
            mfu=utilisation(flops, seconds, self._num_devices, peak) if peak else None,
            figures=figures,
            loads=loads,
            data=data,
        )
        self._num_rows, self._num_steps = 0, 0
        return record


def _memory(device: torch.device) -> dict[str, int]:
    """Bytes of a CUDA device: in use at the peak and now, kept by the allocator, all there are."""
    if device.type != "cuda":
        return {}
    return {
        "memory_bytes": torch.cuda.max_memory_allocated(device),
        "memory_allocated_bytes": torch.cuda.memory_allocated(device),
        "memory_reserved_bytes": torch.cuda.memory_reserved(device),
        "memory_total_bytes": torch.cuda.get_device_properties(device).total_memory,
    }


class DataWatch:
    """Turns the counts of a loader into records, each of what came since the one before."""

    def __init__(self, loader: BatchLoader) -> None:
        sources = loader.dataset.statistics()
        self._loader = loader
        self._num_series = sum(source.num_items for source in sources)
        self._mapped_bytes = sum(source.num_bytes for source in sources)
        self._unit = sources[0].unit
        self._before = loader.counts()

    def record(self) -> DataRecord:
        before, now = self._before, self._loader.counts()
        self._before = now
        depth = self._loader.num_prefetch
        num_built = now.num_built - before.num_built
        num_taken = now.num_taken - before.num_taken
        num_ready = now.num_ready_when_taken - before.num_ready_when_taken
        return DataRecord(
            num_series=self._num_series,
            mapped_bytes=self._mapped_bytes,
            build_seconds=(now.build_seconds - before.build_seconds) / num_built if num_built else 0.0,
            queue_depth=depth,
            queue_fill=num_ready / (num_taken * depth) if num_taken else 0.0,
            num_ready=now.num_ready,
            unit=self._unit,
        )
