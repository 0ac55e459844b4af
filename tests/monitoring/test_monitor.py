"""The monitor as a trainer uses it: one call a logging step, files a person and a program can read."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path

import pytest

from foreloom.monitoring.metrics_file import read_metrics
from foreloom.monitoring.monitor import Monitor, MonitoringConfig
from foreloom.monitoring.record import StepRecord, ValidationRecord

LINE = re.compile(
    r"Step [\d,]+/[\d,]+ \| loss=\d+\.\d{4} \| ema=\d+\.\d{4} \| best=\d+\.\d{4} \| lr=\d\.\d\de[+-]\d\d"
    r"( \| mem=\d+\.\d/\d+GB)? \| \d+\.\d+ stp/s \| \d+ smp/s \| eta=(\d+s|\d+m \d+s|\d+h \d+m|\d+d \d+h)"
    r" \| gnorm=\d+\.\d{3}( ⚠)?"
)
BANNER = {"Model": {"family": "chronos2", "parameters": 3_118_496}, "Data": {"sources": ["a", "b"]}}
QUIET = MonitoringConfig(trackers=("none",))


def record(step: int, loss: float = 10.0, grad_norm: float = 1.0) -> StepRecord:
    return StepRecord(
        step=step,
        loss=loss,
        grad_norm=grad_norm,
        learning_rate=1e-4,
        num_rows=step * 16,
        rows_per_step=16.0,
        steps_per_second=2.0,
        seconds=step / 2,
    )


def test_console_and_training_log_carry_the_same_documented_lines(tmp_path, capsys):
    monitor = Monitor(tmp_path, 300, MonitoringConfig(log_steps=100, trackers=("none",)))
    monitor.start(BANNER)
    for step, loss in [(100, 10.0), (200, 8.0), (300, 9.0)]:
        monitor.log(record(step, loss))
    monitor.finish({"checkpoint": "checkpoints/step-00000300"})

    text = capsys.readouterr().out
    assert (tmp_path / "training.log").read_text(encoding="utf-8") == text
    lines = [line for line in text.splitlines() if line.startswith("Step")]
    assert len(lines) == 3
    assert all(LINE.fullmatch(line) for line in lines)
    assert "loss=9.0000 | ema=8.9833 | best=8.0000" in lines[-1]
    assert "3,118,496" in text
    assert "10.0000 -> 9.0000 (-10.0%)" in text
    assert "checkpoints/step-00000300" in text
    assert logging.getLogger("foreloom").handlers == []


def test_a_run_that_stops_between_log_lines_says_where(tmp_path):
    monitor = Monitor(tmp_path, 300, QUIET)
    monitor.start(BANNER)
    monitor.log(record(100))
    monitor.finish({}, step=137)
    assert read_metrics(tmp_path).events[-1]["sentence"] == "Stopped at step 137 of 300."
    assert read_metrics(tmp_path).events[-1]["step"] == 137
    assert read_metrics(tmp_path).events[-1]["result"]["figures"] == "those of the log line of step 100"


def test_other_ranks_print_errors_only(tmp_path, capsys):
    monitor = Monitor(tmp_path / "run", 10, QUIET, is_main=False)
    monitor.start(BANNER)
    monitor.log(record(1))
    monitor.event("checkpoint", "Saved.")
    logging.getLogger("foreloom.data").info("opened")
    monitor.warn("data", "series 7 is all missing")
    logging.getLogger("foreloom.data").warning("all ranks read the same")
    logging.getLogger("foreloom.data").error("of this rank alone")
    monitor.finish({})
    assert capsys.readouterr().out == "error: of this rank alone\n"  # what all ranks know the main one says
    assert not (tmp_path / "run").exists()


def test_warnings_of_a_kind_are_thinned_where_they_are_shown_and_kept_in_the_metrics(tmp_path, capsys):
    monitor = Monitor(tmp_path, 300, QUIET)
    monitor.start(BANNER)
    for step in range(1, 103):
        monitor.warn("skipped_step", f"Step {step} changed nothing.", step=step)
    monitor.warn("stop", "Another kind.")
    monitor.close()
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert [line.split()[2] for line in shown] == ["1", "2", "3", "4", "5", "10", "100", "kind."]
    assert "number 5: from now on" in shown[4] and "number 100; all are in metrics.jsonl" in shown[6]
    assert len(read_metrics(tmp_path).events) == 104


def test_metrics_hold_every_field_and_every_event(tmp_path):
    monitor = Monitor(tmp_path, 10, QUIET)
    monitor.start(BANNER)
    monitor.log(record(5))
    monitor.event("checkpoint", "Saved step 5.", path=tmp_path)
    monitor.warn("non_finite", "Step 6 was skipped.", step=6, samples=[1, 2])
    monitor.log(record(10, loss=float("nan")))
    monitor.finish({"outcome": "done"})
    assert not logging.getLogger("foreloom").isEnabledFor(logging.INFO), "as before the run: progress is then printed"

    steps, events = read_metrics(tmp_path)
    assert steps[0] == {"kind": "step", **dataclasses.asdict(record(5)), "ema": 10.0, "best": 10.0}
    assert (steps[1]["loss"], steps[1]["ema"]) == (None, 10.0)
    assert [event["kind"] for event in events] == ["start", "checkpoint", "non_finite", "finish"]
    assert (events[1]["step"], events[1]["path"]) == (5, str(tmp_path))
    assert (events[2]["step"], events[2]["level"], events[2]["samples"]) == (6, "warning", [1, 2])


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(tmp_path, capsys):
    losses = [(step, 10 - step / 10) for step in range(1, 31)]

    def lines(run_dir, sessions):
        state = None
        for first, last in sessions:
            monitor = Monitor(run_dir, 30, QUIET)
            if state:
                monitor.load_state_dict(json.loads(json.dumps(state)))
            monitor.start(BANNER, from_step=first)
            for step, loss in losses[first:last]:
                monitor.log(record(step, loss, grad_norm=100.0 if step == 21 else 1.0))
                if step == 20:
                    state = monitor.state_dict()
            monitor.close()
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("Step")]

    straight = lines(tmp_path / "straight", [(0, 30)])
    resumed = lines(tmp_path / "resumed", [(0, 25), (20, 30)])
    assert straight[20].endswith("gnorm=100.000 ⚠")
    assert resumed[:25] == straight[:25]
    assert resumed[25:] == straight[20:]
    assert read_metrics(tmp_path / "resumed").steps == read_metrics(tmp_path / "straight").steps


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_costs_one_warning_an_output(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    (tmp_path / "training.log").symlink_to("/dev/full")
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    monitor = Monitor(tmp_path, 3, MonitoringConfig(log_steps=1))
    monitor.start(BANNER)
    for step in (1, 2, 3):
        monitor.log(record(step))
    monitor.finish({})
    out, err = capsys.readouterr()
    assert out.count("metrics.jsonl cannot be written") == 1
    assert out.count("tensorboard cannot be written") == 1
    assert err.count("training.log cannot be written") == 1
    assert len(LINE.findall(out)) == 3


def test_tensorboard_shows_what_was_logged_and_hides_what_was_resumed_over(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    state = None
    for steps in ((1, 2, 3), (3, 4)):
        monitor = Monitor(tmp_path, 4, MonitoringConfig(log_steps=1))
        if state:
            monitor.load_state_dict(state)
        monitor.start(BANNER, from_step=2 if state else 0)
        for step in steps:
            monitor.log(record(step, loss=float(step)))
            if step == 2:
                state = monitor.state_dict()
        monitor.finish({})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/ema", "train/learning_rate", "train/grad_norm"} <= tags
    assert {"throughput/steps_per_second", "throughput/rows_per_second"} <= tags
    assert [(point.step, point.value) for point in events.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize("trackers", [("none", "tensorboard"), ("tensorboard", "tensorboard"), ("comet",)])
def test_trackers_that_make_no_sense_are_refused(trackers):
    with pytest.raises(ValueError, match="trackers"):
        MonitoringConfig(trackers=trackers)


def test_log_steps_must_be_positive():
    with pytest.raises(ValueError, match="log_steps"):
        MonitoringConfig(log_steps=0)


def test_what_is_said_while_the_run_is_built_reaches_the_log(tmp_path):
    monitor = Monitor(tmp_path, 10, MonitoringConfig(trackers=("none",)))
    logging.getLogger("foreloom.models").info("context_length: 2048 -> 8192")
    monitor.start({"Model": {"family": "toy"}})
    monitor.close()
    lines = (tmp_path / "training.log").read_text().splitlines()
    assert lines[-1] == "context_length: 2048 -> 8192"
    assert not logging.getLogger("foreloom").handlers


def test_figures_and_validations_reach_every_output_and_leave_the_first_line_as_it_is(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monitor = Monitor(tmp_path, 300, MonitoringConfig(log_steps=100))
    monitor.start(BANNER)
    monitor.log(record(100))
    monitor.log(dataclasses.replace(record(200), figures={"forecast_loss": 0.25, "expert_entropy": 0.98765}))
    measured = ValidationRecord(
        step=200, loss=0.5, best_loss=0.4, best_step=100, num_in_vain=1, patience=3, figures={"forecast_loss": 0.48}
    )
    monitor.log_validation(measured)
    monitor.finish({}, step=200, is_end=True)

    first, second, figures, validation, validated, *_ = capsys.readouterr().out.partition("Step")[2].splitlines()
    assert LINE.fullmatch(f"Step{first}") and LINE.fullmatch(second)
    assert figures == "  forecast_loss=0.25 | expert_entropy=0.9877"
    assert validation == "Validation after step 200: loss=0.5000 | best=0.4000 at step 100 | 1 of 3 in vain"
    assert validated == "  forecast_loss=0.48"
    steps, events = read_metrics(tmp_path)
    assert [step["figures"] for step in steps] == [{}, {"forecast_loss": 0.25, "expert_entropy": 0.98765}]
    (event,) = [event for event in events if event["kind"] == "validation"]
    assert dataclasses.asdict(measured).items() <= event.items() and event["level"] == "info"
    assert events[-1]["sentence"] == "Finished early at step 200 of 300."
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    points = {tag: [(p.step, p.value) for p in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert points["train/forecast_loss"] == [(200, 0.25)]
    assert points["validation/loss"] == [(200, 0.5)]
    assert points["validation/forecast_loss"] == [(200, pytest.approx(0.48))]


def test_a_record_with_figures_survives_a_resume(tmp_path):
    monitor = Monitor(tmp_path, 10, QUIET)
    monitor.log(dataclasses.replace(record(5), figures={"aux_loss": 2.0}))
    again = Monitor(tmp_path, 10, QUIET)
    again.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert again.state_dict() == monitor.state_dict()
    assert again.summary() == monitor.summary()
    again.close()
