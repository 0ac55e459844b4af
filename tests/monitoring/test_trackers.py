"""Every tracker is told the same on both axes, goes on with the same run after a resume, and cannot end one."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_run import BENCHMARK, VALIDATION, plain_record

from foreloom.monitoring import trackers
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.monitoring.monitor import Monitor, MonitoringConfig

RECIPE = "model:\n  family: toy\ndata:\n  sources:\n  - path: here\n    weight: 2.0\n"


def two_sessions(run_dir: Path, **config) -> None:
    """Steps 1 to 3, then from the state after step 2 on: 3 and 4. A step costs 2.5 GFLOPs."""
    run_dir.mkdir(exist_ok=True)
    (run_dir / "recipe.yaml").write_text(RECIPE)
    state = None
    for steps in ((1, 2, 3), (3, 4)):
        monitor = Monitor(run_dir, 4, MonitoringConfig(log_steps=1, **config))
        if state:
            monitor.load_state_dict(json.loads(json.dumps(state)))
        monitor.start({}, from_step=2 if state else 0, flops=5e9 if state else 0.0)
        for step in steps:
            monitor.log(plain_record(step, flops=step * 2.5e9, seconds_by_part={"data_wait": 1.0, "other": 3.0}))
            if step == 2:
                state = monitor.state_dict()
        monitor.log_validation(VALIDATION)
        monitor.log_benchmark(BENCHMARK)
        monitor.close()
        time.sleep(1.1)  # TensorBoard orders its files by the second they were begun in


def test_tensorboard_has_a_second_axis_of_flops(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    two_sessions(tmp_path, trackers=("tensorboard",))
    steps, flops = (EventAccumulator(str(tmp_path / folder)) for folder in ("tensorboard", "tensorboard/by_flops"))
    steps.Reload()
    flops.Reload()
    assert [point.step for point in steps.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [point.value for point in steps.Scalars("time/data_wait")] == [0.25] * 4
    assert [point.step for point in flops.Scalars("by_flops/train/loss")] == [2, 5, 7, 10]  # GFLOPs
    assert {"by_flops/validation/loss", "by_flops/benchmark/avg_wql"} <= set(flops.Tags()["scalars"])
    assert not any("throughput" in tag or "time/" in tag for tag in flops.Tags()["scalars"])
    text = steps.Tensors("recipe.yaml/text_summary")[0].tensor_proto.string_val[0].decode()
    assert RECIPE in text


def test_a_session_that_begins_again_hides_all_of_one_that_saved_nothing(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        monitor = Monitor(tmp_path, 4, MonitoringConfig(log_steps=1))
        monitor.start({}, from_step=0)
        monitor.log_validation(replace(VALIDATION, step=0))
        for step in (1, 2):
            monitor.log(plain_record(step, flops=step * 2e9))
        monitor.close()
        time.sleep(1.1)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [point.step for point in board.Scalars("train/loss")] == [1, 2]
    assert [point.step for point in board.Scalars("validation/loss")] == [0]
    flops = EventAccumulator(str(tmp_path / "tensorboard" / "by_flops"))
    flops.Reload()
    assert [point.step for point in flops.Scalars("by_flops/train/loss")] == [2, 4]


def test_a_thread_of_tensorboard_that_fails_prints_no_traceback(tmp_path, monkeypatch, capfd):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def refuse(*_):
        raise OSError(28, "No space left on device")

    before = threading.excepthook
    monitor = Monitor(tmp_path, 4, MonitoringConfig(log_steps=1))
    monitor.start({})
    monkeypatch.setattr(RecordWriter, "write", refuse)
    for step in (1, 2, 3):
        monitor.log(plain_record(step))
    monitor.close()
    out, err = capfd.readouterr()
    assert out.count("tensorboard cannot be written ([Errno 28]") == 1 and "Traceback" not in out + err
    assert threading.excepthook is before


def test_what_was_scored_between_a_log_line_and_the_checkpoint_is_kept(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Monitor(tmp_path, 4, MonitoringConfig(log_steps=2))
    first.start({})
    first.log(plain_record(2, flops=4e9))
    state = first.state_dict()  # of the checkpoint after step 3
    for step in (3, 4):
        first.log_validation(replace(VALIDATION, step=step))
    first.close()
    time.sleep(1.1)  # TensorBoard orders its files by the second they were begun in
    second = Monitor(tmp_path, 4, MonitoringConfig(log_steps=2))
    second.load_state_dict(state)
    second.start({}, from_step=3, flops=6e9)
    second.log(plain_record(4, flops=8e9))
    second.close()
    for folder, tag, places in (
        ("tensorboard", "validation/loss", [3]),
        ("tensorboard", "train/loss", [2, 4]),
        ("tensorboard/by_flops", "by_flops/validation/loss", [6]),
    ):
        points = EventAccumulator(str(tmp_path / folder))
        points.Reload()
        assert [point.step for point in points.Scalars(tag)] == places, tag


def log_entries(content: bytes) -> list[bytes]:
    """Of W&B's file: LevelDB's log format (blocks of 32 KiB; entries of checksum, length, type) after 7 bytes."""
    entries, at = [], 7
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # what no header fits into is left empty
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part = content[at + 7 : at + 7 + length]
        if kind in (1, 2):  # a whole entry, or the first part of one
            entries.append(part)
        else:
            entries[-1] += part
        at += 7 + length
    return entries


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the package wandb")
    from wandb.proto import wandb_internal_pb2

    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    two_sessions(tmp_path / "run", trackers=("wandb",), project="curtains")

    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    run_id = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 2
    for file in files:
        assert (file.parent / "files" / "recipe.yaml").read_text() == RECIPE
    points, projects, settings = [], set(), {}
    for file in files:
        for data in log_entries(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                projects.add(record.run.project)
                settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                items = record.history.item
                points.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    assert projects == {"curtains"}
    assert settings["data"] == {"sources": [{"path": "here", "weight": 2.0}]}
    train = [(point["step"], point["flops"]) for point in points if "train/loss" in point]
    assert train == [(1, 2.5e9), (2, 5e9), (3, 7.5e9), (3, 7.5e9), (4, 1e10)]
    assert {"by_flops/train/loss", "validation/loss", "benchmark/nn5/mase"} <= set().union(*points)


def test_mlflow_in_a_local_store(tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking", reason="needs the package mlflow")
    pytest.importorskip("sqlalchemy", reason="needs the package mlflow, not mlflow-skinny alone")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    two_sessions(tmp_path / "run", trackers=("mlflow",), project="curtains")

    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("curtains")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params == {"model.family": "toy", "data.sources.0.path": "here", "data.sources.0.weight": "2.0"}
    history = lambda tag: sorted(point.step for point in client.get_metric_history(run.info.run_id, tag))
    assert history("train/loss") == [1, 2, 3, 3, 4]
    assert history("by_flops/train/loss") == [2, 5, 7, 7, 10]
    assert {"validation/loss", "benchmark/nn5/mase"} <= set(run.data.metrics)
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"recipe.yaml", "environment.json"}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_told_before_the_run_begins(name, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"{name} is not installed; pip install 'foreloom\[{name}\]'"):
        Monitor(tmp_path / "run", 4, MonitoringConfig(trackers=(name,)), is_main=False)
    assert not (tmp_path / "run").exists()
    assert logging.getLogger("foreloom").handlers == []


class Broken:
    """Works `num_good` times."""

    name = "tensorboard"

    def __init__(self, num_good: int) -> None:
        self.num_good, self.num_calls = num_good, 0

    def scalars(self, step, flops, values):
        self.num_calls += 1
        if self.num_calls > self.num_good:
            raise RuntimeError("the server\nis gone")

    def close(self):
        raise RuntimeError("still gone")


@pytest.mark.parametrize("num_good", [1, 9])
def test_a_tracker_that_fails_costs_one_warning_and_is_left_alone(num_good, tmp_path, monkeypatch, capsys):
    broken = Broken(num_good)
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", lambda session: broken)
    two = Monitor(tmp_path, 4, MonitoringConfig(log_steps=1))
    two.start({})
    for step in (1, 2, 3, 4):
        two.log(plain_record(step))
    two.finish({})
    assert broken.num_calls == min(num_good + 1, 4)
    warnings = [event["sentence"] for event in read_metrics(tmp_path).events if event["level"] == "warning"]
    reason = "the server is gone" if num_good == 1 else "still gone"
    assert warnings == [f"tensorboard cannot be written ({reason}); the run goes on without it"]
    assert len(read_metrics(tmp_path).steps) == 4


def test_a_project_without_a_tracker_that_has_projects_is_refused():
    with pytest.raises(ValueError, match="project has no effect"):
        MonitoringConfig(project="curtains")


def test_a_run_that_waits_for_data_is_told_once_also_across_a_resume(tmp_path):
    def record(step):
        parts = {"data_wait": 20.0, "forward_backward": 20.0}
        return plain_record(step, seconds_by_part=parts)

    state = None
    for steps in ((1, 2, 3, 4), (5, 6, 7, 8)):
        monitor = Monitor(tmp_path, 8, MonitoringConfig(log_steps=1, trackers=("none",)))
        if state:
            monitor.load_state_dict(state)
        monitor.start({})
        for step in steps:
            monitor.log(record(step))
        state = monitor.state_dict()
        monitor.close()
    (event,) = [event for event in read_metrics(tmp_path).events if event["kind"] == "slow"]
    assert event["step"] == 3  # 80 seconds, those of the first line left out
    assert (event["part"], event["level"]) == ("data_wait", "warning")
    assert event["sentence"].startswith("data wait takes 50% of the time: training waits for data")
