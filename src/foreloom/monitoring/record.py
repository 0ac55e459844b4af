"""What the trainer tells the monitor: plain numbers, read from the device at logging steps only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class StepRecord:
    """One logging step, already reduced over ranks. Means are over the steps since the previous record."""

    step: int
    loss: float
    """Mean of the global batches' losses (each sum / count) since the previous record; skipped steps do not count."""
    grad_norm: float
    """Global gradient norm before clipping."""
    learning_rate: float
    """Used for this step's update."""
    samples: int
    """Rows seen since the run began."""
    samples_per_step: float
    steps_per_second: float
    """Since the previous record, evaluation and checkpoint time left out."""
    seconds: float
    """Wall time since the run began, earlier sessions of a resumed run included."""
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    data_wait_share: float = 0.0
    """Share of the time since the previous record spent waiting for data."""
    flops: float = 0.0
    """Model FLOPs spent since the run began."""
    num_skipped_steps: int = 0
    """Non-finite steps skipped since the run began."""
    next_sample: int = 0
    """Stream index after this step's batch, where the next one begins; what `foreloom data replay` starts from."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the model family adds, by name (`expert_entropy`), over the steps since the previous record."""


@dataclass(frozen=True)
class ValidationRecord:
    """One validation, already reduced over ranks."""

    step: int
    """Whose weights were measured; 0: those the run began with."""
    loss: float
    """Mean over the terms of all validation windows."""
    best_loss: float
    """The lowest so far, this one included."""
    best_step: int | None
    num_in_vain: int
    """Validations since the last one that improved the loss enough."""
    patience: int
    """So many in vain end the run; 0: none do."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the model family adds, by name."""


@dataclass(frozen=True)
class BenchmarkRecord:
    """One benchmark of one tier, already reduced over ranks. Scores are lower where they are better."""

    step: int
    """Whose weights were scored; 0: those the run began with."""
    tier: Literal["lite", "extended"]
    scores: Mapping[str, float]
    """`wql` and `mase`, means over tasks, and `composite`, their weighted sum."""
    tasks: Mapping[str, Mapping[str, float]]
    """`wql` and `mase` of each task."""
    metric: str
    """The score that decides which model is best."""
    best_score: float
    """The lowest of the tier so far, this one included."""
    best_step: int | None
    previous: Mapping[str, float] | None
    """The tier's scores the time before; None the first time."""
    seconds: float
    """What it took."""
    training_share: float
    """What all benchmarks of the run have taken so far, as a share of its time."""
