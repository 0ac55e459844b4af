"""What one training is measured by: read from its run folder, beside its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from foreloom.report.ab.training import Job, peak_of
from foreloom.report.run_folder import RunFolder, read_run_folder

MEBIBYTE = 2**20
LOSS, WQL = "loss", "wql"


@dataclass(frozen=True)
class Measure:
    """A row of the table."""

    name: str
    """In ab.json."""
    label: str
    better: Literal["lower", "higher"] | None = None
    """Which direction is an improvement; None for what is neither good nor bad."""


MEASURES = (
    Measure(LOSS, "Held-out loss", "lower"),
    Measure(WQL, "Held-out WQL", "lower"),
    Measure("wql_relative", "WQL relative to Seasonal Naive", "lower"),
    Measure("num_steps", "Steps"),
    Measure("tera_flops", "FLOPs, 1e12"),
    Measure("million_parameters", "Parameters, millions"),
    Measure("training_seconds", "Seconds of training", "lower"),
    Measure("rows_per_second", "Rows a second", "higher"),
    Measure("time_steps_per_second", "Time steps a second", "higher"),
    Measure("peak_mebibytes", "Peak memory, MiB", "lower"),
    Measure("device_peak_mebibytes", "Peak device memory, MiB", "lower"),
    Measure("expert_entropy", "Expert usage, entropy"),
    Measure("dead_experts", "Experts never used"),
)
"""Rows that no run has are left out."""


@dataclass(frozen=True)
class Measured:
    """A finished training in numbers."""

    job: Job
    values: Mapping[str, float]
    """By `Measure.name`, those the run has; finite."""
    curve: Mapping[int, float]
    """Step -> held-out loss."""
    flops_per_step: float
    figures: Mapping[str, float]
    """What the family says of the held-out windows at the end."""


def measure(job: Job, num_parameters: int, scores: Mapping[str, float]) -> Measured:
    """The numbers of a finished run. ValueError where its held-out loss, or a score, is not finite.

    The loss is that of the weights in hf/, without what a router adds to it where the family says so
    (`forecast_loss`). Seconds leave out evaluation and checkpoints; time steps are those of full windows, context and
    horizon: the tokens of a model that reads a step at a time.
    """
    folder = read_run_folder(job.folder)
    manifest = next(one for one in folder.manifests if one["final"])
    events = {event["step"]: event for event in folder.newest_events("validation")}
    curve = {step: _loss(event) for step, event in events.items()}
    exported = manifest["export_step"]
    data = job.recipe.sections["data"]
    seconds = _training_seconds(folder)
    rows_per_second = manifest["samples"] / seconds
    device_peaks = [record["memory_bytes"] for record in folder.metrics.steps if record.get("memory_bytes")]
    peak_bytes = peak_of(job.folder)
    figures = events[exported].get("figures") or {}
    values = {
        LOSS: curve[exported],
        **scores,
        "num_steps": manifest["step"],
        "tera_flops": manifest["flops"] / 1e12,
        "million_parameters": num_parameters / 1e6,
        "training_seconds": seconds,
        "rows_per_second": rows_per_second,
        "time_steps_per_second": rows_per_second * (data.context_length + data.prediction_length),
        "peak_mebibytes": peak_bytes / MEBIBYTE if peak_bytes else None,
        "device_peak_mebibytes": max(device_peaks) / MEBIBYTE if device_peaks else None,
        **{name: figures.get(name) for name in ("expert_entropy", "dead_experts")},
    }
    known = {name: float(value) for name, value in values.items() if value is not None}
    broken = [name for name, value in known.items() if not math.isfinite(value)]
    if broken:
        raise ValueError(f"{job.training.name}: {', '.join(broken)} not finite; see {job.folder}/training.log")
    return Measured(job, known, curve, manifest["flops"] / manifest["step"], figures)


def _loss(event: Mapping[str, Any]) -> float:
    """JSON has null for what is not finite."""
    figures = event.get("figures") or {}
    loss = figures.get("forecast_loss", event["loss"])
    return math.nan if loss is None else loss


def _training_seconds(folder: RunFolder) -> float:
    """Of the main rank, over all sessions."""
    return sum(
        seconds
        for record in folder.metrics.steps
        for part, seconds in record["seconds_by_part"].items()
        if part not in ("evaluation", "checkpoint")
    )
