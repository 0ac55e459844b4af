"""The health report: what the meters of a run say, as titled rows that the console and the report page draw.

The meters may be a run's own or come back from metrics.jsonl. Rows whose quantity a run does not have (the memory of a
CPU, the experts of a dense model) are left out. Axes: L layers, E experts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from foreloom.monitoring.console import Bar, Curve, Loads, duration
from foreloom.monitoring.meters import NUM_RECENT, GradNormMeter, LearningRateMeter, LossMeter, Meters
from foreloom.monitoring.record import (
    TIME_PARTS,
    BenchmarkRecord,
    SaveRecord,
    StepRecord,
    TimePart,
    ValidationRecord,
    time_shares,
)

Rows = dict[str, str | Bar | Curve | Loads]
"""Label -> value."""

TREND_WINDOW = 10
"""The trend compares the mean of so many logged losses with that of as many before them."""
VARIANCE_WINDOW = 20
CLIP_ADVICE = 0.5
"""Share of clipped steps from which the report says what to do."""
MEMORY_LOW, MEMORY_HIGH = 0.3, 0.9
"""Shares of the device's memory, at its peak, below and above which the report says what to do."""
MOST_TASKS = 15
"""Of a benchmark; larger ones show their averages only."""
TIME_NAMES: Mapping[str, str] = {
    **{part: part.replace("_", " ") for part in TIME_PARTS},
    "forward_backward": "forward/backward",
}
"""For people."""


def lay_out(meters: Meters, total_steps: int) -> dict[str, Rows]:
    """Title -> label -> value, for `console.box` and the report page. There is a newest logging step."""
    record = meters.last
    assert record is not None
    sections: dict[str, Rows] = {
        f"Health at step {record.step:,} of {total_steps:,}": _progress(record, total_steps),
        "Loss": _loss(meters.loss),
        "Gradients": _gradients(record, meters.grad_norm),
        "Learning rate": _learning_rate(record, meters.learning_rate),
        "GPU memory": _memory(record),
        "Throughput": _throughput(record, total_steps),
        "Time": _time(meters.time.seconds_by_part, meters.save),
        "Data": _data(record),
        "Model": {name: _number(value, ".4g") for name, value in record.figures.items()},
        **{_title(name): _loads(load_LE) for name, load_LE in record.loads.items()},
        "Validation": _validation(meters.validation),
        **{f"Benchmark ({tier})": _benchmark(newest) for tier, newest in meters.benchmarks.items()},
    }
    return {title: rows for title, rows in sections.items() if rows}


def headline(meters: Meters) -> str:
    """The report in a sentence."""
    assert meters.last is not None
    word = trend(meters.loss.recent)
    return f"Health at step {meters.last.step:,}: loss {meters.last.loss:.4f}" + (f", {word}." if word else ".")


def save_line(record: SaveRecord) -> str:
    """`Checkpoint of step 400: training stood still for 0.12 s; written in 3.4 s (1.2 GB)`."""
    return (
        f"Checkpoint of step {record.step:,}: training stood still for {record.stall_seconds:.2g} s; written in "
        f"{record.write_seconds:.2g} s ({bytes_in_words(record.num_bytes)})"
    )


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


def _progress(record: StepRecord, total_steps: int) -> Rows:
    share = record.step / total_steps
    return {"progress": Bar(share, text=f"{share:.1%}"), "elapsed": duration(record.seconds)}


def _loss(loss: LossMeter) -> Rows:
    if loss.last is None:
        return {}
    rows: Rows = {
        "current": f"{loss.last:.4f}",
        "average": f"{loss.ema:.4f} fast, {loss.slow_ema:.4f} slow",
        "best": f"{loss.best:.4f} at step {loss.best_step:,}",
    }
    if word := trend(loss.recent):
        rows["trend"] = word
    if len(loss.recent) >= VARIANCE_WINDOW:
        rows["variance"] = f"{statistics.pvariance(loss.recent[-VARIANCE_WINDOW:]):.3g} of the last {VARIANCE_WINDOW}"
    if loss.num_steps and loss.first is not None:
        rate = (loss.last - loss.first) / loss.num_steps * 1000
        rows["rate"] = f"{rate:+.4g} in 1,000 steps, from the first on"
    rows["history"] = Curve(loss.recent)
    if loss.num_milestones:
        newest = ", ".join(f"{value:.4f} at step {step:,}" for step, value in loss.milestones)
        drops = f"drop{'' if loss.num_milestones == 1 else 's'} of {loss.MILESTONE_DROP:.0%}"
        rows["milestones"] = f"{loss.num_milestones} {drops} or more; newest {newest}"
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
    rows["history"] = Curve(recent[-NUM_RECENT:])
    if clip_rate > CLIP_ADVICE:
        usual = f" above the usual {statistics.median(recent):.3g}" if recent else ""
        rows["advice"] = (
            "most steps are clipped, so that the unusual ones do not stand out: raise training.max_grad_norm"
            f"{usual}, or lower optimizer.learning_rate where the norm grows"
        )
    return rows


def _learning_rate(record: StepRecord, meter: LearningRateMeter) -> Rows:
    rows: Rows = {"current": f"{record.learning_rate:.3e}"}
    if meter.peak:
        rows["peak so far"] = f"{meter.peak:.3e}, now {record.learning_rate / meter.peak:.1%} of it"
    rows["history"] = Curve(meter.recent)
    return rows


def _memory(record: StepRecord) -> Rows:
    peak, total = record.memory_bytes, record.memory_total_bytes
    allocated, reserved = record.memory_allocated_bytes, record.memory_reserved_bytes
    if peak is None or total is None or allocated is None or reserved is None:
        return {}
    share = peak / total
    rows: Rows = {
        "in use": Bar(allocated / total, share, f"{share:.0%} at the peak of {total / 2**30:.0f} GB"),
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
    rows: Rows = {"speed": f"{speed:.4g} steps/s, {speed * record.rows_per_step:,.0f} rows/s"}
    mean, p50, p95 = record.step_seconds_mean, record.step_seconds_p50, record.step_seconds_p95
    if mean is not None and p50 is not None and p95 is not None:
        rows["step time"] = f"{mean:.3g} s mean, {p50:.3g} s p50, {p95:.3g} s p95"
    rows["time left"] = duration((total_steps - record.step) / speed if speed else math.inf)
    rows["rows"] = f"{record.num_rows:,}"
    if record.flops:
        rows["FLOPs"] = f"{record.flops:.3e}"
    if record.mfu is not None:
        rows["MFU"] = f"{record.mfu:.1%}"
    return rows


def _time(seconds_by_part: Mapping[str, float], save: SaveRecord | None) -> Rows:
    """The part that takes most comes first; what rounds to nothing is left out."""
    ordered = sorted(time_shares(seconds_by_part).items(), key=lambda pair: -pair[1])
    rows: Rows = {TIME_NAMES[part]: Bar(share, text=f"{share:.1%}") for part, share in ordered if share >= 0.0005}
    if save:
        rows["last save"] = (
            f"stood still for {save.stall_seconds:.2g} s, {save.write_seconds:.2g} s to write "
            f"{bytes_in_words(save.num_bytes)}, step {save.step:,}"
        )
    if advice := advise(seconds_by_part):
        rows["advice"] = advice.sentence
    return rows


def _data(record: StepRecord) -> Rows:
    data = record.data
    if data is None:
        return {}
    rows: Rows = {
        data.unit: f"{data.num_series:,}, {bytes_in_words(data.mapped_bytes)} mapped",
        "batch": f"{data.build_seconds * 1000:.3g} ms to make",
        "wait": f"{record.data_wait_share:.1%} of the training time",
    }
    if data.queue_depth:
        ready = f"{data.num_ready} of {data.queue_depth} batches now"
        rows["read ahead"] = Bar(data.queue_fill, text=f"{data.queue_fill:.0%} full on average, {ready}")
    return rows


def _loads(load_LE: Sequence[Sequence[float]]) -> Rows:
    """How evenly the experts of each layer were used: a bar an expert, and the entropy over that of an even load."""
    entropy_L = [_entropy(load_E) for load_E in load_LE]
    num_dead = sum(not load for load_E in load_LE for load in load_E)
    rows: Rows = {
        "entropy": f"{statistics.fmean(entropy_L):.3f} mean, {min(entropy_L):.3f} lowest layer; 1 is even",
        "dead experts": f"{num_dead} of {sum(map(len, load_LE))}",
    }
    for layer, (load_E, entropy) in enumerate(zip(load_LE, entropy_L, strict=True), start=1):
        rows[f"layer {layer}"] = Loads(load_E, f"{entropy:.3f}")
    return rows


def _entropy(load_E: Sequence[float]) -> float:
    total = sum(load_E)
    if len(load_E) == 1 or not total:
        return 1.0
    return -sum(load / total * math.log(load / total) for load in load_E if load) / math.log(len(load_E))


def _validation(record: ValidationRecord | None) -> Rows:
    if record is None:
        return {}
    rows: Rows = {"last": f"{_number(record.loss, '.4f')} after step {record.step:,}"}
    if record.best_step is not None:
        rows["best"] = f"{record.best_loss:.4f} after step {record.best_step:,}"
    if record.patience:
        rows["patience"] = f"{record.num_in_vain} of {record.patience} in vain"
    return rows


def _benchmark(record: BenchmarkRecord) -> Rows:
    rows: Rows = {"last": f"{_scores(record.scores)} after step {record.step:,}"}
    if record.best_step is not None:
        rows["best"] = f"{record.metric} {record.best_score:.4f} after step {record.best_step:,}"
    if len(record.tasks) <= MOST_TASKS:
        rows |= {task: _scores(scores) for task, scores in record.tasks.items()}
    return rows


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_number(score, '.4f')}" for name, score in scores.items())


def _number(value: float | None, form: str) -> str:
    """None where it was read back and is not finite."""
    return format(math.nan if value is None else value, form)


def bytes_in_words(count: int) -> str:
    """GB are 2^30 bytes."""
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.1f} MB"


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


class _Limit(NamedTuple):
    share: float
    """The most that calls for no advice."""
    advice: str


_LIMITS: Mapping[TimePart, _Limit] = {
    "data_wait": _Limit(
        0.2,
        "training waits for data: put them on a local disk, raise data.num_prefetch (where 0, nothing is read ahead), "
        "or give each process more cores",
    ),
    "optimizer": _Limit(
        0.4, "updates cost much of the time: a larger training.batch_size makes fewer of them for the same data"
    ),
    "communication": _Limit(
        0.2,
        "ranks wait for each other: look for a slower one, and raise training.batch_size so that they meet less often",
    ),
    "evaluation": _Limit(
        0.25, "score more rarely: raise validation.steps or benchmark.steps, or lower validation.max_windows"
    ),
    "checkpoint": _Limit(0.1, "checkpoints cost much of the time: raise training.save_steps"),
    "other": _Limit(
        0.25,
        "the host is busy between steps: raise training.batch_size and training.micro_batch_size so that a step does "
        "more, and monitoring.log_steps",
    ),
}


class Advice(NamedTuple):
    """What to do about a part that takes too much of the time."""

    part: TimePart
    sentence: str


def advise(seconds_by_part: Mapping[str, float]) -> Advice | None:
    """Advice on the part that is furthest above its limit, in times of the limit; None where none is.

    Limits, as shares of all time: data_wait 20 %, optimizer 40 %, communication 20 %, evaluation 25 %, checkpoint 10 %,
    other 25 %. Forward and backward are what a run is for.
    """
    share_of = time_shares(seconds_by_part)
    excess = {part: share_of.get(part, 0.0) / limit.share for part, limit in _LIMITS.items()}
    worst = max(excess, key=excess.__getitem__)
    if excess[worst] <= 1:
        return None
    sentence = f"{TIME_NAMES[worst]} takes {share_of[worst]:.0%} of the time: {_LIMITS[worst].advice}"
    return Advice(worst, sentence)
