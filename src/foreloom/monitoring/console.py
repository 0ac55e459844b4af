"""The text a run prints: log lines, boxes of titled rows, and the small pictures in them; pure functions."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from foreloom.monitoring.record import BenchmarkRecord, StepRecord, ValidationRecord

BOX_WIDTH = 74
WARNING_MARK = "⚠"
LEVELS = " ▁▂▃▄▅▆▇█"
BAR_WIDTH = 20


class Bar(NamedTuple):
    """A row's value: a bar filled up to a share of 1 and hatched up to another, and what is said of it."""

    share: float
    peak_share: float = 0.0
    text: str = ""


class Curve(NamedTuple):
    """A row's value: the course of a figure, oldest first."""

    values: Sequence[float]


class Loads(NamedTuple):
    """A row's value: what each of E experts was given, and what is said of it."""

    load_E: Sequence[float]
    text: str


def log_line(record: StepRecord, *, total_steps: int, ema: float, best: float, surge: bool = False) -> str:
    """One logging step on one line, fields parted by ` | `, ready for grep and for the eye.

    `Step 1,000/200,000 | loss=9.6887 | ema=9.7102 | best=9.6432 | lr=4.99e-05 | mem=42.1/80GB | 9.3 stp/s |
    7131 smp/s | eta=5h 52m | gnorm=1.243`. `mem` is there only where the device reports memory; GB are 2^30 bytes.
    `surge` puts a warning mark behind the gradient norm.
    """
    remaining_seconds = (total_steps - record.step) / record.steps_per_second if record.steps_per_second else math.inf
    fields = [
        f"Step {record.step:,}/{total_steps:,}",
        f"loss={record.loss:.4f}",
        f"ema={ema:.4f}",
        f"best={best:.4f}",
        f"lr={record.learning_rate:.2e}",
    ]
    if record.memory_bytes is not None and record.memory_total_bytes is not None:
        fields.append(f"mem={record.memory_bytes / 2**30:.1f}/{record.memory_total_bytes / 2**30:.0f}GB")
    fields += [
        f"{record.steps_per_second:.{1 if record.steps_per_second >= 1 else 3}f} stp/s",
        f"{record.steps_per_second * record.rows_per_step:.0f} smp/s",
        f"eta={duration(remaining_seconds)}",
        f"gnorm={record.grad_norm:.3f}" + (f" {WARNING_MARK}" if surge else ""),
    ]
    return " | ".join(fields)


def figures_line(figures: Mapping[str, float]) -> str:
    """What the model family adds to a log line, below it: `  forecast_loss=0.4127 | aux_loss=2.013`."""
    return "  " + " | ".join(f"{name}={value:.4g}" for name, value in figures.items())


def validation_line(record: ValidationRecord) -> str:
    """One validation on one line.

    `Validation after step 400: loss=0.4127 | best=0.4101 at step 300 | 1 of 3 in vain`. The last part says how many
    validations have passed without an improvement, of those that end the run; it is there only where some number does.
    """
    fields = [f"Validation after step {record.step:,}: loss={record.loss:.4f}"]
    if record.best_step is not None:
        fields.append(f"best={record.best_loss:.4f} at step {record.best_step:,}")
    if record.patience:
        fields.append(f"{record.num_in_vain} of {record.patience} in vain")
    return " | ".join(fields)


def benchmark_line(record: BenchmarkRecord) -> str:
    """One benchmark on one line, arrows showing how far each score moved since the one before: down is better.

    `Benchmark (lite, 5 tasks) after step 400: wql=0.0841 ↓0.0012 | mase=0.9782 ↑0.0034 | composite=0.4417 ↓0.0001 |
    best wql: this one | 12s, benchmarks 3.1% of the time`
    """
    tasks = f"{len(record.tasks)} task{'' if len(record.tasks) == 1 else 's'}"
    scores = " | ".join(
        f"{name}={score:.4f}{_movement(score, (record.previous or {}).get(name, math.nan))}"
        for name, score in record.scores.items()
    )
    best = ""
    if record.best_step is not None:
        is_new = record.best_step == record.step
        holder = "this one" if is_new else f"{record.best_score:.4f} at step {record.best_step:,}"
        best = f" | best {record.metric}: {holder}"
    return (
        f"Benchmark ({record.tier}, {tasks}) after step {record.step:,}: {scores}{best} | "
        f"{duration(record.seconds)}, benchmarks {record.training_share:.1%} of the time"
    )


def _movement(score: float, before: float) -> str:
    change = score - before
    return f" {'↓' if change < 0 else '↑'}{abs(change):.4f}" if math.isfinite(change) and change else ""


def duration(seconds: float) -> str:
    """Seconds in the two units that matter: `45s`, `3m 20s`, `5h 52m`, `2d 4h`; `unknown` where they are infinite."""
    if not math.isfinite(seconds):
        return "unknown"
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    if minutes:
        return f"{minutes}m {whole_seconds}s"
    return f"{whole_seconds}s"


def box(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A box of `BOX_WIDTH` columns: titled sections, a label and its value a row, long ones wrapped."""
    label_width = min(max((len(label) for rows in sections.values() for label in rows), default=0), BOX_WIDTH // 2)
    value_width = BOX_WIDTH - label_width - 6
    lines: list[str] = []
    for title, rows in sections.items():
        left, right = ("├", "┤") if lines else ("┌", "┐")
        lines.append(f"{left}─ {title} ".ljust(BOX_WIDTH - 1, "─") + right)
        for label, value in rows.items():
            labels = textwrap.wrap(label, label_width, break_on_hyphens=False)
            values = textwrap.wrap(text(value), value_width, break_on_hyphens=False) or [""]
            for name, part in itertools.zip_longest(labels, values, fillvalue=""):
                lines.append(f"│ {name:<{label_width}}  {part:<{value_width}} │")
    lines.append("└" + "─" * (BOX_WIDTH - 2) + "┘")
    return "\n".join(lines)


def text(value: Any) -> str:
    """A row's value in characters."""
    match value:
        case Bar():
            return f"{bar(value.share, value.peak_share)} {value.text}"
        case Curve():
            return sparkline(value.values)
        case Loads():
            return f"│{load_bar(value.load_E)}│ {value.text}"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(text(item) for item in value)
        case _:
            return str(value)


def sparkline(values: Sequence[float], width: int = BAR_WIDTH) -> str:
    """The finite values from lowest to highest level, one character each; means of neighbours where they are more than
    `width`. Values that are all equal are drawn at half height."""
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(finite))
    edges = [round(i * len(finite) / count) for i in range(count + 1)] if count else []
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    if high == low:
        return LEVELS[len(LEVELS) // 2] * count
    return "".join(LEVELS[round((mean - low) / (high - low) * (len(LEVELS) - 1))] for mean in means)


def bar(share: float, peak_share: float = 0.0, width: int = BAR_WIDTH) -> str:
    """`██████▒▒░░░░`: filled up to `share`, hatched up to `peak_share`, light up to 1."""
    filled = round(min(share, 1.0) * width)
    hatched = max(round(min(peak_share, 1.0) * width), filled)
    return "█" * filled + "▒" * (hatched - filled) + "░" * (width - hatched)


def load_bar(load: Sequence[float]) -> str:
    """A character an expert: half height where it got its even share, full from twice that on, blank where nothing."""
    even = sum(load) / len(load)
    if not even:
        return LEVELS[0] * len(load)
    highest = len(LEVELS) - 1
    return "".join(LEVELS[math.ceil(min(value / even / 2, 1.0) * highest - 1e-9)] for value in load)
