"""The health report: how a run is doing, as titled rows of text made from its meters and newest records.

Rows whose quantity a run does not have (the memory of a CPU, the experts of a dense model) are left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foreloom.monitoring.console import duration
from foreloom.monitoring.meters import GradNormMeter, LearningRateMeter, LossMeter
from foreloom.monitoring.record import BenchmarkRecord, StepRecord, ValidationRecord
from foreloom.monitoring.sparkline import bar, load_bar, sparkline
from foreloom.monitoring.time_parts import NAMES, advise, shares

Rows = dict[str, str]

TREND_WINDOW = 10
"""The trend compares the mean of so many logged losses with that of as many before them."""
VARIANCE_WINDOW = 20
CLIP_ADVICE = 0.5
"""Share of clipped steps from which the report says what to do."""
MEMORY_LOW, MEMORY_HIGH = 0.3, 0.9
"""Shares of the device's memory, at its peak, below and above which the report says what to do."""
MOST_TASKS = 15
"""Of a benchmark; larger ones show their averages only."""


@dataclass(frozen=True)
class Health:
    """All that a report is made from."""

    record: StepRecord
    total_steps: int
    loss: LossMeter
    grad_norm: GradNormMeter
    learning_rate: LearningRateMeter
    seconds_by_part: Mapping[str, float]
    """Since the previous report."""
    validation: ValidationRecord | None
    benchmarks: Mapping[str, BenchmarkRecord]
    """The newest of each tier."""


def report(health: Health) -> dict[str, Rows]:
    """Title -> label -> text, ready for `console.box`."""
    record = health.record
    sections = {
        f"Health at step {record.step:,} of {health.total_steps:,}": _progress(health),
        "Loss": _loss(health.loss),
        "Gradients": _gradients(record, health.grad_norm),
        "Learning rate": _learning_rate(record, health.learning_rate),
        "GPU memory": _memory(record),
        "Throughput": _throughput(record, health.total_steps),
        "Time": _time(health.seconds_by_part),
        "Data": _data(record),
        "Model": {name: f"{value:.4g}" for name, value in record.figures.items()},
        **{_title(name): _loads(load_LE) for name, load_LE in record.loads.items()},
        "Validation": _validation(health.validation),
        **{f"Benchmark ({tier})": _benchmark(newest) for tier, newest in health.benchmarks.items()},
    }
    return {title: rows for title, rows in sections.items() if rows}


def headline(health: Health) -> str:
    """The report in a sentence."""
    record = health.record
    word = trend(health.loss.recent)
    return f"Health at step {record.step:,}: loss {record.loss:.4f}" + (f", {word}." if word else ".")


def trend(losses: Sequence[float]) -> str | None:
    """How the newest logged losses (oldest first) compare with those before them; None until there are enough.

    Change of the mean of 10 against the 10 before: below -0.5 % converging, below -0.1 % decreasing, above 1 %
    DIVERGING, above 0.1 % increasing, else stable.
    """
    if len(losses) < 2 * TREND_WINDOW:
        return None
    newest = statistics.fmean(losses[-TREND_WINDOW:])
    before = statistics.fmean(losses[-2 * TREND_WINDOW : -TREND_WINDOW])
    change = (newest - before) / abs(before) if before else 0.0
    if change < -0.005:
        word = "converging"
    elif change < -0.001:
        word = "decreasing"
    elif change > 0.01:
        word = "DIVERGING"
    elif change > 0.001:
        word = "increasing"
    else:
        word = "stable"
    return f"{word} ({change:+.2%})"


def _progress(health: Health) -> Rows:
    share = health.record.step / health.total_steps
    return {"progress": f"{bar(share)} {share:.1%}", "elapsed": duration(health.record.seconds)}


def _loss(loss: LossMeter) -> Rows:
    if loss.last is None:
        return {}
    rows = {"current": f"{loss.last:.4f}"}
    rows["average"] = f"{loss.ema:.4f} fast, {loss.slow_ema:.4f} slow"
    rows["best"] = f"{loss.best:.4f} at step {loss.best_step:,}"
    if word := trend(loss.recent):
        rows["trend"] = word
    if len(loss.recent) >= VARIANCE_WINDOW:
        rows["variance"] = f"{statistics.pvariance(loss.recent[-VARIANCE_WINDOW:]):.3g} of the last {VARIANCE_WINDOW}"
    num_steps = loss.num_steps
    if num_steps and loss.first is not None:
        rate = (loss.last - loss.first) / num_steps * 1000
        rows["rate"] = f"{rate:+.4g} in 1,000 steps, from the first on"
    rows["history"] = sparkline(loss.recent)
    if loss.num_milestones:
        newest = ", ".join(f"{value:.4f} at step {step:,}" for step, value in loss.milestones)
        drop = f"drop{'' if loss.num_milestones == 1 else 's'} of {loss.MILESTONE_DROP:.0%}"
        rows["milestones"] = f"{loss.num_milestones} {drop} or more" + (f"; newest {newest}" if newest else "")
    return rows


def _gradients(record: StepRecord, norms: GradNormMeter) -> Rows:
    rows: Rows = {}
    recent = list(norms.recent)
    if recent:
        rows["norm"] = (
            f"{statistics.fmean(recent):.4g} mean, {max(recent):.4g} highest, {statistics.pstdev(recent):.3g} standard "
            f"deviation of the last {len(recent)}"
        )
    clip_rate = record.num_clipped_steps / record.step
    rows["clipped"] = f"{record.num_clipped_steps:,} of {record.step:,} steps, {clip_rate:.1%}"
    rows["not finite"] = f"{record.num_non_finite_steps:,} of them"
    rows["explosions"] = f"{norms.num_explosions:,}"
    rows["history"] = sparkline(recent[-40:])
    if clip_rate > CLIP_ADVICE:
        rows["advice"] = "most steps are clipped: lower optimizer.learning_rate, or raise training.max_grad_norm"
    return rows


def _learning_rate(record: StepRecord, meter: LearningRateMeter) -> Rows:
    rows = {"current": f"{record.learning_rate:.3e}"}
    if meter.peak:
        rows["peak so far"] = f"{meter.peak:.3e}, now {record.learning_rate / meter.peak:.1%} of it"
    rows["history"] = sparkline(meter.recent)
    return rows


def _memory(record: StepRecord) -> Rows:
    peak, total = record.memory_bytes, record.memory_total_bytes
    allocated, reserved = record.memory_allocated_bytes, record.memory_reserved_bytes
    if peak is None or total is None or allocated is None or reserved is None:
        return {}
    share = peak / total
    rows = {
        "in use": f"{bar(allocated / total, share)} {share:.0%} at the peak of {total / 2**30:.0f} GB",
        "allocated": f"{allocated / 2**30:.1f} GB now, {peak / 2**30:.1f} GB at the peak",
        "reserved": f"{reserved / 2**30:.1f} GB",
    }
    if share < MEMORY_LOW:
        rows["advice"] = "most of the memory is idle: raise training.micro_batch_size"
    elif share > MEMORY_HIGH:
        rows["advice"] = (
            "little is left: lower training.micro_batch_size (results stay the same), or set "
            "training.activation_checkpointing"
        )
    return rows


def _throughput(record: StepRecord, total_steps: int) -> Rows:
    speed = record.steps_per_second
    rows = {"speed": f"{speed:.4g} steps/s, {speed * record.samples_per_step:,.0f} samples/s"}
    mean, p50, p95 = record.step_seconds_mean, record.step_seconds_p50, record.step_seconds_p95
    if mean is not None and p50 is not None and p95 is not None:
        rows["step time"] = f"{mean:.3g} s mean, {p50:.3g} s p50, {p95:.3g} s p95"
    rows["time left"] = duration((total_steps - record.step) / speed if speed else math.inf)
    rows["samples"] = f"{record.samples:,}"
    if record.flops:
        rows["FLOPs"] = f"{record.flops:.3e}"
    if record.mfu is not None:
        rows["MFU"] = f"{record.mfu:.1%}"
    return rows


def _time(seconds_by_part: Mapping[str, float]) -> Rows:
    """The part that takes most comes first; what rounds to nothing is left out."""
    ordered = sorted(shares(seconds_by_part).items(), key=lambda pair: -pair[1])
    rows = {NAMES[part]: f"{bar(share)} {share:.1%}" for part, share in ordered if share >= 0.0005}
    if advice := advise(seconds_by_part):
        rows["advice"] = advice.sentence
    return rows


def _data(record: StepRecord) -> Rows:
    data = record.data
    if data is None:
        return {}
    rows = {
        "series": f"{data.num_series:,}, {_bytes(data.mapped_bytes)} mapped",
        "batch": f"{data.build_seconds * 1000:.3g} ms to make",
        "wait": f"{record.data_wait_share:.1%} of the training time",
    }
    if data.queue_depth:
        rows["read ahead"] = (
            f"{bar(data.queue_fill)} {data.queue_fill:.0%} full on average, {data.num_ready} of {data.queue_depth} "
            "batches now"
        )
    return rows


def _loads(load_LE: Sequence[Sequence[float]]) -> Rows:
    """How evenly the experts of each layer were used: a bar an expert, and the entropy over that of an even load."""
    rows: Rows = {}
    entropies = [_entropy(load_E) for load_E in load_LE]
    num_dead = sum(not load for load_E in load_LE for load in load_E)
    rows["entropy"] = f"{statistics.fmean(entropies):.3f} mean, {min(entropies):.3f} lowest layer; 1 is even"
    rows["dead experts"] = f"{num_dead} of {sum(map(len, load_LE))}"
    for layer, (load_E, entropy) in enumerate(zip(load_LE, entropies, strict=True), start=1):
        rows[f"layer {layer}"] = f"│{load_bar(load_E)}│ {entropy:.3f}"
    return rows


def _entropy(load_E: Sequence[float]) -> float:
    total = sum(load_E)
    if len(load_E) == 1 or not total:
        return 1.0
    return -sum(load / total * math.log(load / total) for load in load_E if load) / math.log(len(load_E))


def _validation(record: ValidationRecord | None) -> Rows:
    if record is None:
        return {}
    rows = {"last": f"{record.loss:.4f} after step {record.step:,}"}
    if record.best_step is not None:
        rows["best"] = f"{record.best_loss:.4f} after step {record.best_step:,}"
    if record.patience:
        rows["patience"] = f"{record.num_in_vain} of {record.patience} in vain"
    return rows


def _benchmark(record: BenchmarkRecord) -> Rows:
    rows = {"last": f"{_scores(record.scores)} after step {record.step:,}"}
    if record.best_step is not None:
        rows["best"] = f"{record.metric} {record.best_score:.4f} after step {record.best_step:,}"
    if len(record.tasks) <= MOST_TASKS:
        rows |= {task: _scores(scores) for task, scores in record.tasks.items()}
    return rows


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score:.4f}" for name, score in scores.items())


def _bytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.1f} MB"


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
