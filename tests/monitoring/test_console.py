"""The text of a run, against golden copies."""

from __future__ import annotations

import math

import pytest

from foreloom.monitoring.console import BOX_WIDTH, bar, box, duration, load_bar, log_line, sparkline, validation_line
from foreloom.monitoring.record import StepRecord, ValidationRecord


def record(**changes) -> StepRecord:
    values = {
        "step": 1000,
        "loss": 9.68871,
        "grad_norm": 1.2434,
        "learning_rate": 4.994e-05,
        "num_rows": 768_000,
        "rows_per_step": 768.0,
        "steps_per_second": 9.285,
        "seconds": 110.0,
    }
    return StepRecord(**(values | changes))


def test_log_line_is_that_of_the_original():
    gpu = record(memory_bytes=int(42.1 * 2**30), memory_total_bytes=80 * 2**30)
    assert log_line(gpu, total_steps=200_000, ema=9.71021, best=9.64318) == (
        "Step 1,000/200,000 | loss=9.6887 | ema=9.7102 | best=9.6432 | lr=4.99e-05 | mem=42.1/80GB | "
        "9.3 stp/s | 7131 smp/s | eta=5h 57m | gnorm=1.243"
    )


def test_log_line_without_device_memory_and_with_a_surge():
    assert log_line(record(steps_per_second=0.04), total_steps=1001, ema=9.7, best=9.6, surge=True) == (
        "Step 1,000/1,001 | loss=9.6887 | ema=9.7000 | best=9.6000 | lr=4.99e-05 | "
        "0.040 stp/s | 31 smp/s | eta=25s | gnorm=1.243 ⚠"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m 0s"),
        (200, "3m 20s"),
        (5 * 3600 + 52 * 60 + 59, "5h 52m"),
        (2 * 86400 + 4 * 3600 + 1, "2d 4h"),
        (math.inf, "unknown"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_box():
    sections = {
        "Model": {"family": "chronos2", "parameters": 119_477_664, "compile": False},
        "Data": {"sources": ["tsmixup_10m at 0.9", "kernel_synth_1m at 0.1", "something_with_a_long_name at 0.0"]},
    }
    assert box(sections) == (
        "┌─ Model ────────────────────────────────────────────────────────────────┐\n"
        "│ family      chronos2                                                   │\n"
        "│ parameters  119,477,664                                                │\n"
        "│ compile     no                                                         │\n"
        "├─ Data ─────────────────────────────────────────────────────────────────┤\n"
        "│ sources     tsmixup_10m at 0.9, kernel_synth_1m at 0.1,                │\n"
        "│             something_with_a_long_name at 0.0                          │\n"
        "└────────────────────────────────────────────────────────────────────────┘"
    )
    long = "regimes?length=768&periods=7,7,24,24,48,96,144,168,288&seasonal=1&noise=0.1"  # a label, wider than the box
    of_address = box({"Data": {long: "6% of the samples"}})
    assert {len(line) for line in (box(sections) + "\n" + of_address).splitlines()} == {BOX_WIDTH}
    assert "".join(line[2:39].strip() for line in of_address.splitlines()[1:-1]) == long


def test_a_validation_line_says_what_is_known():
    start = ValidationRecord(
        step=0, loss=float("nan"), best_loss=float("inf"), best_step=None, num_in_vain=0, patience=0
    )
    assert validation_line(start) == "Validation after step 0: loss=nan"
    later = ValidationRecord(step=12_000, loss=0.41266, best_loss=0.41266, best_step=12_000, num_in_vain=0, patience=2)
    assert (
        validation_line(later)
        == "Validation after step 12,000: loss=0.4127 | best=0.4127 at step 12,000 | 0 of 2 in vain"
    )


def test_sparkline_runs_from_lowest_to_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8]) == " ▁▂▃▄▅▆▇█"
    assert sparkline([8, 0]) == "█ "


def test_more_values_than_places_are_averaged():
    values = [float(i // 2) for i in range(40)]
    assert len(sparkline(values)) == 20
    assert sparkline(values) == sparkline([float(i) for i in range(20)])
    assert len(sparkline([float(i) for i in range(33)])) == 20


def test_values_that_cannot_be_drawn():
    assert sparkline([]) == ""
    assert sparkline([math.nan, math.inf]) == ""
    assert sparkline([0.0, math.nan, 8.0]) == " █"
    assert sparkline([3.0, 3.0]) == "▄▄"


@pytest.mark.parametrize(
    ("share", "peak", "text"),
    [(0.0, 0.0, "░░░░"), (0.5, 0.0, "██░░"), (0.25, 0.75, "█▒▒░"), (0.5, 0.25, "██░░"), (1.2, 1.5, "████")],
)
def test_bar(share, peak, text):
    assert bar(share, peak, width=4) == text


def test_load_bar_is_half_high_where_even():
    assert load_bar([5, 5, 5, 5]) == "▄▄▄▄"
    assert load_bar([30, 10, 0, 0]) == "█▄  "
    assert load_bar([1999, 1, 0, 0])[1] == "▁"  # used at all is seen
    assert load_bar([0, 0]) == "  "
