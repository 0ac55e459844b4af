"""What the trainer tells the monitor: plain numbers, read from the device at logging steps only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Tier = Literal["lite", "extended"]
"""Of the benchmark in training."""
TimePart = Literal["data_wait", "forward_backward", "optimizer", "communication", "evaluation", "checkpoint", "other"]
TIME_PARTS: tuple[TimePart, ...] = get_args(TimePart)
"""What the time of a run goes into. `communication` is what ranks tell each other outside forward and backward: the
exchange of gradients (DDP) and of weights (FSDP) overlaps with computing and counts as `forward_backward`."""


@dataclass(frozen=True)
class DataRecord:
    """The data engine of the main rank over the steps since the previous record."""

    num_series: int
    """In the mixture, those that are too short left out."""
    mapped_bytes: int
    """Of the files that are mapped, whether in memory or not."""
    build_seconds: float
    """Mean time to make a batch, by the background reader where there is one."""
    queue_depth: int = 0
    """Most batches read ahead; 0: none are."""
    queue_fill: float = 0.0
    """How full the queue was when a batch was taken from it, the mean; 0: training waited every time."""
    num_ready: int = 0
    """Batches in the queue now."""
    unit: str = "series"
    """What `num_series` counts, in the plural: of a text documents."""


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
    num_rows: int
    """Rows seen since the run began."""
    rows_per_step: float
    steps_per_second: float
    """Since the previous record, evaluation and checkpoint time left out."""
    seconds: float
    """Wall time since the run began, earlier sessions of a resumed run included."""
    memory_bytes: int | None = None
    """Peak allocated on the main rank's device, where it tells."""
    memory_total_bytes: int | None = None
    memory_allocated_bytes: int | None = None
    """Now."""
    memory_reserved_bytes: int | None = None
    """What the allocator keeps from the device, in use or not."""
    data_wait_share: float = 0.0
    """Share of the time since the previous record spent waiting for data."""
    flops: float = 0.0
    """Model FLOPs spent since the run began."""
    loss_terms: int = 0
    """What was learned from since the run began, over all micro-batches and ranks: targets in the loss (tokens, time
    steps), those of skipped steps too; where a recipe's loss counts rows or batches (reduction, protocol: reference),
    these."""
    num_skipped_steps: int = 0
    """Non-finite steps skipped since the run began."""
    next_sample: int = 0
    """Stream index after this step's batch, where the next one begins; what `foreloom data replay` starts from."""
    num_clipped_steps: int = 0
    """Steps since the run began whose gradient norm reached 99 % of training.max_grad_norm."""
    num_non_finite_steps: int = 0
    """Steps since the run began whose loss or gradient norm was not finite."""
    step_seconds_mean: float | None = None
    """Of the newest 200 steps of this session on the main rank, evaluation and checkpoints left out."""
    step_seconds_p50: float | None = None
    step_seconds_p95: float | None = None
    seconds_by_part: Mapping[str, float] = field(default_factory=dict)
    """Where the time since the previous record went on the main rank, evaluation and checkpoints included: see
    `TIME_PARTS`."""
    mfu: float | None = None
    """Model FLOPs utilisation since the previous record; None where the device's peak is not known."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the model family adds, by name (`expert_entropy`), over the steps since the previous record."""
    loads: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    """Counts by name, a row a layer, an entry an expert (`expert_load`), over the steps since the previous record."""
    data: DataRecord | None = None
    """What the data engine did since the previous record."""
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    """Of each group of parameters, by the kinds in it, where they differ."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StepRecord:
        """Back from `dataclasses.asdict`."""
        own = {name: value for name, value in values.items() if name != "data"}
        data = values.get("data")
        return cls(**own, data=DataRecord(**data) if data else None)


@dataclass(frozen=True)
class SaveRecord:
    """One checkpoint that is whole."""

    step: int
    stall_seconds: float
    """For which training stood still."""
    write_seconds: float
    """Until the disk had it, the checks of what was written included."""
    num_bytes: int


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
    tier: Tier
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


def time_shares(seconds_by_part: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of the sum; empty where there is no time to share out."""
    total = sum(seconds_by_part.values())
    return {part: seconds / total for part, seconds in seconds_by_part.items()} if total else {}


def score_name(tier: Tier, score: str) -> str:
    """What a score of a tier is called in a checkpoint's manifest: `wql`, `extended_wql`."""
    return score if tier == "lite" else f"{tier}_{score}"
