"""The health report: its text against a golden copy, its numbers from metrics.jsonl, and what it says at its limits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from scripted_run import BENCHMARK, TOTAL_STEPS, VALIDATION, plain_record, step_record

from foreloom.monitoring import console
from foreloom.monitoring.console import BOX_WIDTH
from foreloom.monitoring.health import Rows, advise, lay_out, trend
from foreloom.monitoring.meters import Meters
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.monitoring.monitor import Monitor, MonitoringConfig
from foreloom.monitoring.record import TIME_PARTS, time_shares

GOLDEN = Path(__file__).parent / "health.golden.txt"
CONFIG = MonitoringConfig(log_steps=25, health_steps=1000, trackers=("none",))


def tell(run_dir: Path, sessions: list[tuple[int, int]]) -> None:
    """Log lines of steps from..to a session; each goes on from the state at step 975."""
    state = None
    for first, last in sessions:
        monitor = Monitor(run_dir, TOTAL_STEPS, CONFIG)
        if state:
            monitor.load_state_dict(json.loads(json.dumps(state)))
        monitor.start({})
        for step in range(first, last + 1, 25):
            monitor.log(step_record(step))
            monitor.report_health()
            if step == 900:
                monitor.log_validation(VALIDATION)
                monitor.log_benchmark(BENCHMARK)
            if step == 975:
                state = monitor.state_dict()
        monitor.close()


def boxes(text: str) -> list[str]:
    """The health reports in a log."""
    return [f"┌─ Health{part.partition('┘')[0]}┘" for part in text.split("┌─ Health")[1:]]


def read_back(event) -> dict[str, Rows]:
    """The rows of a report from what metrics.jsonl holds."""
    meters = Meters()
    meters.load_state_dict(event["meters"])
    return lay_out(meters, event["total_steps"])


@pytest.mark.parametrize("sessions", [[(25, 1050)], [(25, 975), (1000, 1050)]], ids=["straight", "resumed"])
def test_the_report_is_the_golden_one_also_across_a_resume(tmp_path, sessions):
    tell(tmp_path, sessions)
    (box,) = boxes((tmp_path / "training.log").read_text(encoding="utf-8"))
    assert box == GOLDEN.read_text(encoding="utf-8").rstrip("\n")
    assert {len(line) for line in box.splitlines()} == {BOX_WIDTH}
    (event,) = [event for event in read_metrics(tmp_path).events if event["kind"] == "health"]
    assert event["step"] == 1000
    assert event["sentence"].startswith("Health at step 1,000: loss 3.5110, converging")
    assert event["meters"]["last"]["num_clipped_steps"] == 600
    assert event["meters"]["last"]["loads"]["expert_load"][1] == [300, 100, 0, 0]
    assert console.box(read_back(event)) == box


def test_what_is_not_finite_can_be_drawn_from_metrics_jsonl(tmp_path):
    monitor = Monitor(tmp_path, 100, CONFIG)
    monitor.start({})
    nan = float("nan")
    monitor.log_validation(dataclasses.replace(VALIDATION, loss=nan, best_loss=float("inf"), best_step=None))
    monitor.log_benchmark(dataclasses.replace(BENCHMARK, scores={"wql": nan}, best_step=None))
    monitor.log(dataclasses.replace(plain_record(1000), loss=nan, grad_norm=nan, figures={"aux_loss": nan}))
    monitor.report_health()
    monitor.close()
    (event,) = [event for event in read_metrics(tmp_path).events if event["kind"] == "health"]
    (box,) = boxes((tmp_path / "training.log").read_text(encoding="utf-8"))
    assert console.box(read_back(event)) == box
    assert "wql nan after step 800" in box and "nan after step 900" in box


def reports(run_dir: Path, records, **config) -> list[dict[str, dict[str, str]]]:
    """Title -> label -> text of each report, drawn from metrics.jsonl."""
    settings = {"log_steps": 1, "trackers": ("none",), "health_steps": 10} | config
    monitor = Monitor(run_dir, 100, MonitoringConfig(**settings))
    monitor.start({})
    for record in records:
        monitor.log(record)
        monitor.report_health()
    monitor.close()
    events = [event for event in read_metrics(run_dir).events if event["kind"] == "health"]
    return [
        {
            title: {label: console.text(value) for label, value in rows.items()}
            for title, rows in read_back(event).items()
        }
        for event in events
    ]


def test_what_a_run_does_not_have_is_left_out(tmp_path):
    (report,) = reports(tmp_path, [plain_record(step) for step in range(1, 12)])
    assert list(report) == ["Health at step 10 of 100", "Loss", "Gradients", "Learning rate", "Throughput"]
    assert set(report["Throughput"]) == {"speed", "time left", "rows"}
    assert not {"trend", "variance", "milestones"} & set(report["Loss"])


def test_reports_come_with_the_log_line_that_passes_a_multiple_and_never_where_they_are_off(tmp_path):
    records = [plain_record(step) for step in (4, 8, 12, 16, 20, 35, 50)]
    titles = [next(iter(report)) for report in reports(tmp_path / "on", records)]
    assert titles == [f"Health at step {step} of 100" for step in (12, 20, 35, 50)]
    assert reports(tmp_path / "off", records, health_steps=0) == []


def test_non_finite_norms_and_explosions_are_counted(tmp_path):
    norms = [1.0] * 10 + [20.0, float("nan")] + [1.0] * 8
    records = [
        dataclasses.replace(plain_record(step), grad_norm=norm, num_non_finite_steps=int(step > 11))
        for step, norm in enumerate(norms, start=1)
    ]
    first, second = reports(tmp_path, records)
    assert (first["Gradients"]["explosions"], first["Gradients"]["not finite"]) == ("0", "0 of them")
    assert (second["Gradients"]["explosions"], second["Gradients"]["not finite"]) == ("2", "1 of them")
    assert second["Gradients"]["norm"].startswith("2 mean, 20 highest, 4.24 standard deviation of the last 19")


def test_memory_advice(tmp_path):
    total = 10 * 2**30
    for share, words in [(0.2, "micro_batch_size"), (0.5, None), (0.95, "activation_checkpointing")]:
        peak = int(total * share)
        memory = dict.fromkeys(("memory_bytes", "memory_allocated_bytes", "memory_reserved_bytes"), peak)
        record = dataclasses.replace(plain_record(10), memory_total_bytes=total, **memory)
        (report,) = reports(tmp_path / str(share), [record])
        advice = report["GPU memory"].get("advice")
        assert (words in advice) if words else (advice is None)


@pytest.mark.parametrize(
    ("change", "word"),
    [(-0.006, "converging"), (-0.002, "decreasing"), (0.0, "stable"), (0.002, "increasing"), (0.02, "DIVERGING")],
)
def test_trend(change, word):
    assert trend([2.0] * 10 + [2.0 * (1 + change)] * 10) == f"{word} ({change:+.2%})"
    assert trend([2.0] * 19) is None


def test_shares_add_up_and_need_some_time():
    assert time_shares({"data_wait": 1.0, "other": 3.0}) == {"data_wait": 0.25, "other": 0.75}
    assert time_shares({}) == time_shares({"other": 0.0}) == {}


@pytest.mark.parametrize(
    ("part", "limit"),
    [("data_wait", 0.2), ("optimizer", 0.4), ("communication", 0.2), ("evaluation", 0.25), ("checkpoint", 0.1),
     ("other", 0.25)],
)  # fmt: skip
def test_each_part_has_its_limit(part, limit):
    def with_share(share):
        return advise({"forward_backward": 1 - share, part: share})

    assert with_share(limit - 0.01) is None
    advice = with_share(limit + 0.01)
    assert advice.part == part
    assert advice.sentence.startswith(f"{part.replace('_', ' ')} takes {limit + 0.01:.0%} of the time: ")


def test_the_part_furthest_above_its_limit_is_named_and_computing_never_is():
    assert advise({"forward_backward": 40, "data_wait": 30, "checkpoint": 30}).part == "checkpoint"
    assert advise({"forward_backward": 100}) is None
    assert advise({}) is None
    assert set(TIME_PARTS) >= {"forward_backward", "data_wait"}
