"""The curves of a run: loss, validation, benchmarks, the figures of its family, and where its time went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foreloom.report.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = tuple[list[int], list[float]]
"""Steps and values."""


def training_figures(run: RunFolder) -> dict[str, Figure]:
    """What it shows -> the figure; quantities that the run does not have are left out."""
    from foreloom.report.figures import curve_figure

    records = run.metrics.steps
    if not records:
        return {}
    steps = [record["step"] for record in records]
    validations = _points(run.newest_events("validation"), "loss")
    figures = {
        "Loss": curve_figure(
            "Loss",
            steps,
            _column(records, "loss"),
            smooth=True,
            label="training",
            beside={"validation": validations} if validations[0] else None,
        ),
        "Learning rate": curve_figure("Learning rate", steps, _column(records, "learning_rate")),
        "Gradient norm": curve_figure("Gradient norm before clipping", steps, _column(records, "grad_norm"), log=True),
        "Speed": curve_figure("Steps per second", steps, _column(records, "steps_per_second")),
    }
    of_family = [record.get("figures") or {} for record in records]
    for name in dict.fromkeys(name for figure in of_family for name in figure):
        title = name.replace("_", " ").capitalize()
        figures[title] = curve_figure(title, steps, _column(of_family, name))
    return figures | _time_figure(records)


def benchmark_figures(run: RunFolder) -> dict[str, Figure]:
    """The mean WQL and MASE of each tier over the steps."""
    from foreloom.report.figures import curve_figure

    tiers: dict[str, list[dict[str, Any]]] = {}
    for record in run.benchmarks:
        tiers.setdefault(record["tier"], []).append(record)
    figures = {}
    for metric in ("wql", "mase"):
        lines = {
            tier: ([record["step"] for record in of], [_number(record["scores"][metric]) for record in of])
            for tier, of in tiers.items()
        }
        if lines:
            (first, (steps, values)), *others = lines.items()
            title = f"Benchmark {metric.upper()}"
            figures[title] = curve_figure(title, steps, values, label=first, beside=dict(others) or None)
    return figures


def _time_figure(records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    from foreloom.report.figures import shares_figure

    timed = [record for record in records if record.get("seconds_by_part")]
    names = dict.fromkeys(name for record in timed for name in record["seconds_by_part"])
    parts = {name: [record["seconds_by_part"].get(name, 0.0) for record in timed] for name in names}
    largest_first = sorted(parts.items(), key=lambda part: -sum(part[1]))
    spent = {name.replace("_", " "): seconds for name, seconds in largest_first if any(seconds)}
    if len(timed) < 2 or not spent:
        return {}
    return {"Time": shares_figure("Where the time went", [record["step"] for record in timed], spent)}


def _points(events: Sequence[Mapping[str, Any]], name: str) -> Points:
    return [event["step"] for event in events], [_number(event[name]) for event in events]


def _column(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [_number(record.get(name)) for record in records]


def _number(value: float | None) -> float:
    """JSON has null for what is not finite."""
    return math.nan if value is None else value
