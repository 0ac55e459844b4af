"""Copies of a benchmark in training data: planted ones are found whatever was done to them, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.audit.audit import Audit, audit
from foreloom.audit.benchmark import Benchmark, BenchmarkTask
from foreloom.audit.rows import Rows
from foreloom.data.source import MemorySource, Series


def rows_of(values: dict[str, np.ndarray], name: str) -> Rows:
    source = MemorySource([Series(key, np.atleast_2d(np.asarray(of))) for key, of in values.items()], name)
    return Rows.of([source], [np.arange(len(source))], [source.lengths])


def looked_for(benchmark: dict[str, np.ndarray], training: dict[str, np.ndarray]) -> Audit:
    rows = rows_of(benchmark, "benchmark")
    none = np.empty(0, np.int64)
    return audit(
        rows_of(training, "training"), Benchmark(rows, [BenchmarkTask("all", np.arange(len(rows)), none, none, 0)])
    )


def walks(num: int, length: int, seed: int) -> dict[str, np.ndarray]:
    """With a season, so that they are like what is measured: level, noise, a day."""
    random = np.random.default_rng(seed)
    day = np.sin(np.arange(length) * 2 * np.pi / 24) * random.uniform(0, 5, (num, 1))
    values = random.normal(size=(num, length)).cumsum(axis=1) + random.normal(size=(num, length)) + day
    return {f"{seed}-{number}": row for number, row in enumerate(values)}


BENCHMARK = walks(30, 3000, 1)
ONE = BENCHMARK["1-7"]


def means(values: np.ndarray, factor: int) -> np.ndarray:
    whole = len(values) // factor * factor
    return values[:whole].reshape(-1, factor).mean(axis=1)


PLANTED = {
    "identical": (ONE, "identical"),
    "rescaled": (ONE * 0.01, "times 0.01"),
    "shifted": ((ONE * 250 + 1e5).astype(np.float32), "times 250, shifted"),
    "flipped": (7 - ONE, "sign flipped, shifted"),
    "reversed": (ONE[::-1], "reversed"),
    "flipped and reversed": (-ONE[::-1], "sign flipped, reversed"),
    "rounded": (ONE.round(1), "identical"),
    "half": ((ONE + 30).astype(np.float16), "shifted"),
    "hours": (means(ONE[5:], 12), "mean of 12 steps"),
    "sums": (means(ONE[5:], 12) * 12, "mean of 12 steps, times 12"),
    "days": (means(ONE, 24) * -3, "mean of 24 steps, times 3, sign flipped"),
    "days of hours of sums": (means(means(ONE[7:], 12) * 12, 4), "mean of 48 steps, times 12"),
    "every third": (ONE[2::3] * 2, "one of 3 steps, times 2"),
    "every twelfth, reversed": (ONE[5::12][::-1], "one of 12 steps, reversed"),
    "quarters, reversed": (means(ONE[1:], 3)[::-1], "mean of 3 steps, reversed"),
}


def test_planted_copies_are_found_with_what_was_done_to_them():
    """Among rows of more than one batch, which several processes share."""
    training = walks(170, 800, 2) | {name: of for name, (of, _) in PLANTED.items()}
    found = looked_for(BENCHMARK, training)
    assert {(one.series, one.benchmark_series) for one in found.overlaps} == {(name, "1-7") for name in PLANTED}
    for one in found.overlaps:
        assert one.transform == PLANTED[one.series][1]
        assert (one.start, one.length) == (0, len(training[one.series]))
        assert one.benchmark_length > len(ONE) - 40 and one.correlation > 0.99
    assert found.tasks[0].num_series_found == 1 and found.tasks[0].longest == len(ONE)


def test_five_minutes_are_found_in_hours_and_days():
    (minutes,) = walks(1, 12_000, 8).values()
    hours = means(minutes[7:], 12) * 12
    training = {"hours": hours, "days": means(minutes[29:], 288), "days of hours": means(hours[3:], 24)[::-1]}
    found = looked_for({"minutes": minutes} | BENCHMARK, training | walks(20, 500, 9)).overlaps
    assert {one.series: one.transform for one in found} == {
        "hours": "mean of 12 steps, times 12", "days": "mean of 288 steps",
        "days of hours": "mean of 288 steps, times 12, reversed",
    }  # fmt: skip
    assert all(one.benchmark_length > 11_000 and one.start == 0 for one in found)
    found = looked_for({"hours": hours, "slow": minutes[::6][::-1]}, {"minutes": minutes, "back": hours[::-1]}).overlaps
    assert {(one.series, one.benchmark_series): one.transform for one in found} == {
        ("minutes", "hours"): "mean of 12 steps of it, times 0.08333", ("back", "hours"): "reversed",
        ("minutes", "slow"): "one of 6 steps of it, reversed",
    }  # fmt: skip


def test_a_stretch_of_a_series_is_found_where_it_lies_and_a_finer_copy_too():
    random = np.random.default_rng(5)
    other = random.normal(size=2000).cumsum()
    other[700:900] = 4 * ONE[100:300] + 9
    fine = np.repeat(ONE[:400], 4) + np.tile([3.0, -3.0, 1.0, -1.0], 400)
    short = random.normal(size=20).cumsum()
    training = {
        "inside": other,
        "fine": fine,
        "longer": np.r_[1.0, 4.0, short * 2, 5.0],
        "two": np.stack([other[:600], fine[:600]]),
    }
    found = {one.series: one for one in looked_for(BENCHMARK | {"short": short}, training).overlaps}
    assert found.keys() == {"inside", "fine", "longer", "two"} and found["two"].target == 1
    inside = found["inside"]
    assert abs(inside.start - 700) <= 2 and abs(inside.length - 200) <= 4
    assert inside.benchmark_start - 100 == inside.start - 700
    assert found["fine"].benchmark_length == 400 and found["fine"].transform == "mean of 4 steps of it"
    assert (found["longer"].start, found["longer"].length) == (2, 20)


@pytest.mark.parametrize("seed", [3])
def test_nothing_is_found_where_nothing_was_planted(seed):
    """Shuffled values; curves that are the same whatever they stand for; one shock that all share; sparse demand."""
    random = np.random.default_rng(seed)
    steps = np.arange(600)
    shuffled = {f"shuffled {name}": random.permutation(of) for name, of in BENCHMARK.items()}
    shock = np.where(steps == 300, 200.0, 0.0) + np.where(steps > 300, 80.0, 0.0)

    def simple(phase: float) -> dict[str, np.ndarray]:
        return {
            "line": phase + 3.0 * steps, "sine": np.sin(steps * 2 * np.pi / 24 + phase),
            "sines": np.sin(steps * 2 * np.pi / 24 + phase) + 0.5 * np.sin(steps * 2 * np.pi / 168),
            "rounded sine": (50 * np.sin(steps * 2 * np.pi / 24)).round(), "growth": phase + 1.01**steps,
            "square": ((steps // 6) % 2) * (1.0 + phase), "logistic": 1 / (1 + np.exp(-(steps - 300) / 20)) + phase,
            "week": np.tile([1.0, 1, 1, 1, 1, 0, 0], 90)[:600], "constant": np.full(600, 1 + phase),
            "step": np.where(steps > 250, 1.0 + phase, 0), "spikes": (steps % 97 == 0) * (1 + phase),
            "parabola": (steps - 200.0) ** 2 + phase, "bump": np.exp(-(((steps - 300) / 40) ** 2)) * (1 + phase),
        } | {f"shock {n}": shock + random.normal(size=600).cumsum() for n in range(8)} | {
            f"demand {n}": np.where(random.random(600) < 0.08, random.integers(1, 4, 600), 0.0) for n in range(20)
        } | {f"count {n}": random.poisson(0.4, 51).astype(float) for n in range(200)}  # fmt: skip

    found = looked_for(BENCHMARK | simple(0.0), shuffled | simple(1.0) | walks(100, 500, 4))
    assert [(one.series, one.benchmark_series, one.transform) for one in found.overlaps] == []
    assert found.benchmark.num_constant == found.training.num_constant == 1


def test_a_number_that_stands_for_a_gap_is_one() -> None:
    filled = ONE[:400].copy()
    filled[[50, 120]] = np.finfo(float).max, -np.finfo(float).max
    (found,) = looked_for(BENCHMARK, {"filled": filled}).overlaps
    assert (found.start, found.length, found.transform) == (0, 400, "identical")


def test_what_cannot_be_told_apart_is_counted_and_an_empty_benchmark_is_refused():
    random = np.random.default_rng(6)
    training = {
        "short": np.arange(15.0),
        "constant": np.ones(40),
        "empty": np.full(40, np.nan),
        "good": random.normal(size=90),
    }
    found = looked_for(BENCHMARK, training)
    assert (found.training.num_rows, found.training.num_short, found.training.num_constant) == (4, 2, 1)
    with pytest.raises(ValueError, match="none of the benchmark's 2 series"):
        looked_for({"short": np.arange(15.0), "constant": np.ones(40)}, training)
