"""What happens between two log lines: counts and clocks on the host, losses on the device until they are read."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from foreloom.monitoring.record import StepRecord
from foreloom.training.state import Progress
from foreloom.training.step import StepFigures
from foreloom.training.tally import RunningTally


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
        return self.count > 0 and math.isfinite(self.loss) and math.isfinite(self.grad_norm)

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


class Interval:
    """The steps since the previous log line."""

    def __init__(self) -> None:
        self.tally = RunningTally()
        self._on_device: list[Tensor] = []
        self._steps: list[tuple[int, int, int]] = []
        self.reset()

    @property
    def is_empty(self) -> bool:
        """No step since the previous log line."""
        return self._num_steps == 0

    def reset(self) -> None:
        self._began = time.perf_counter()
        self._wait_seconds = 0.0
        self._pause_seconds = 0.0
        self._num_rows = 0
        self._num_steps = 0

    def add(self, step: int, first_sample: int, next_sample: int, num_rows: int, figures: StepFigures) -> None:
        """Note a step; what it left on the device is not looked at."""
        self._on_device.append(figures.totals)
        self.tally.add(figures.tally, figures.applied)
        self._steps.append((step, first_sample, next_sample))
        self._num_rows += num_rows
        self._num_steps += 1

    def read(self) -> list[StepOutcome]:
        """The outcomes not read yet. Waits for the device."""
        if not self._on_device:
            return []
        values = torch.stack(self._on_device).tolist()
        outcomes = [StepOutcome(*where, *figures) for where, figures in zip(self._steps, values, strict=True)]
        self._on_device, self._steps = [], []
        return outcomes

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here counts as waiting for data."""
        began = time.perf_counter()
        yield
        self._wait_seconds += time.perf_counter() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent here (checkpoints, the benchmark) does not count as training."""
        began = time.perf_counter()
        yield
        self._pause_seconds += time.perf_counter() - began

    def record(
        self,
        progress: Progress,
        device: torch.device,
        *,
        grad_norm: float,
        learning_rate: float,
        figures: Mapping[str, float],
    ) -> StepRecord:
        """The log line's figures; a new interval begins."""
        seconds = max(time.perf_counter() - self._began - self._pause_seconds, 1e-9)
        used, total = _memory(device)
        record = StepRecord(
            step=progress.step,
            loss=progress.loss,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            samples=progress.samples,
            samples_per_step=self._num_rows / self._num_steps,
            steps_per_second=self._num_steps / seconds,
            seconds=progress.seconds,
            memory_bytes=used,
            memory_total_bytes=total,
            data_wait_share=min(1.0, self._wait_seconds / seconds),
            flops=progress.flops,
            num_skipped_steps=progress.num_skipped_steps,
            figures=figures,
        )
        self.reset()
        return record


def _memory(device: torch.device) -> tuple[int | None, int | None]:
    """Peak bytes allocated on a CUDA device and the bytes it has."""
    if device.type != "cuda":
        return None, None
    return torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
