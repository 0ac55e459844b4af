"""A study that is trained: what is skipped, told and left, and that no run is trained twice."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from foreloom.files import HERE
from foreloom.lab import runs
from foreloom.lab.runs import Outcome
from foreloom.lab.study import locks
from foreloom.lab.study.execution import as_run, execute, part_of, status_of
from foreloom.lab.study.locks import Lock, holder_of, locked
from foreloom.lab.study.results import COLUMNS, rows_of
from foreloom.lab.study.study import Study, read_study
from foreloom.monitoring.metrics_file import read_metrics

DATA = Path(__file__).resolve().parents[3] / "examples" / "data"
RECIPE = f"""
model:
  {{family: time_moe, size: test, use_dense: true, horizon_lengths: [8], hidden_size: 16, intermediate_size: 32}}
data:
  sources: [{{path: {DATA}/us_births.parquet, holdout: 16}}]
  context_length: 24
  prediction_length: 8
  normalization: zero
training: {{steps: 4, batch_size: 4, device: cpu, seed: 5, save_steps: 2}}
monitoring: {{log_steps: 2}}
"""
STUDY = """
study: pair
recipe: base.yaml
settings: {n_convention: non-embedding}
runs:
  - {label: fine, gradient_accumulation_steps: 2}
  - {label: crashes, warmup_steps: 50}
  - {label: other.fine, steps: 3, folder_name: elsewhere}
"""
GO_ON = SimpleNamespace(signal_number=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, trainings_here):
    """A folder with the study, its results, and the exit code."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "base.yaml").write_text(RECIPE)
    (folder / "study.yaml").write_text(STUDY)
    planned = read_study(folder / "study.yaml").resolve()
    return SimpleNamespace(folder=folder, planned=planned, code=execute(planned, folder / "results", GO_ON))


def test_what_a_study_leaves(trained, capsys):
    results = trained.folder / "results"
    assert trained.code == 1  # one crashed, and the one after it was trained all the same
    found = sorted(str(path.relative_to(results)) for path in results.glob("*/[!.]*.*"))
    assert found == [
        "elsewhere/config_other.fine.json", "elsewhere/other.fine.csv",
        "pair/config_crashes.json", "pair/config_fine.json", "pair/fine.csv",
    ]  # fmt: skip
    rows = list(csv.DictReader((results / "pair" / "fine.csv").open()))
    assert tuple(rows[0]) == COLUMNS
    assert [row["optimizer_step"] for row in rows] == ["0", "1", "2", "3", "4"]  # the study logs every step
    assert rows[0]["loss"] == "" and float(rows[0]["validation_loss"]) > 0 and rows[0]["tokens_processed"] == "0"
    config = json.loads((results / "pair" / "config_fine.json").read_text())
    steps = read_metrics(results / "pair" / "runs" / "fine").steps
    for row, step in zip(rows[1:], steps, strict=True):
        assert float(row["loss"]) == step["loss"] and float(row["learning_rate"]) == step["learning_rate"]
        # 24 + 8 steps a row, all but the first of which are forecast, in 4 rows.
        assert int(row["tokens_processed"]) == step["loss_terms"] == 4 * 31 * int(row["optimizer_step"])
        tokens, N = int(row["tokens_processed"]), config["num_non_embedding"]
        assert int(row["theoretical_flops_chinchilla"]) == 6 * N * tokens
        assert float(row["flops"]) == step["flops"] and float(row["seconds"]) == step["seconds"]
    assert config["num_tokens"] == 496 and config["effective_batch_size"] == 4 and config["num_steps"] == 4
    assert (
        config["settings"]["training.micro_batch_size"] == 2
        and "4 rows / " in config["reasons"]["training.micro_batch_size"]
    )
    assert config["outcome"]["status"] == "finished" and config["outcome"]["loss"] == float(rows[-1]["validation_loss"])
    assert config["tokens_are"] == "time steps of series that are forecast"
    assert str(trained.folder) not in json.dumps({k: v for k, v in config.items() if k not in ("given", "outcome")})
    crashed = json.loads((results / "pair" / "config_crashes.json").read_text())["outcome"]
    assert crashed["status"] == "failed" and "50 steps of warm-up" in crashed["error"]


def test_the_second_call_trains_only_what_failed(trained, capsys, monkeypatch):
    results, asked = trained.folder / "results", []

    def train(run, stop, earlier=None, *, resume=False):
        asked.append((run.name, resume))
        return Outcome(run.name, "", [], "", "failed", 2, "no luck")

    monkeypatch.setattr(runs, "train", train)
    assert execute(trained.planned, results, GO_ON) == 1
    assert asked == [("crashes", False)]
    err = capsys.readouterr().err
    assert err.count("was there already") == 2 and "1 of 3 runs failed: crashes" in err
    found = {one.planned.label: one for one in status_of(trained.planned, results)}
    assert {label: one.state for label, one in found.items()} == {
        "fine": "finished", "crashes": "failed", "other.fine": "finished",
    }  # fmt: skip
    assert found["fine"].step == 4 and found["crashes"].words == "no luck" and found["fine"].words == ""
    grown = [replace(one, facts={**one.facts, "num_steps": 1000}) for one in trained.planned]
    words = {one.planned.label: one.words for one in status_of(grown, results)}
    assert words["fine"] == "was of 4 steps, and the study asks for 1,000 now: that is another run"
    assert words["crashes"] == "no luck"


def test_results_can_be_copied(trained, tmp_path):
    """And a run goes on elsewhere being finished."""
    shutil.copytree(trained.folder / "results", tmp_path / "copied", symlinks=True)
    assert execute(trained.planned[:1], tmp_path / "copied", GO_ON) == 0


def test_a_loss_that_is_not_finite_is_nan(trained, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(trained.folder / "results" / "pair" / "runs" / "fine", run_dir, symlinks=True)
    metrics = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "step" and line["step"] == 3:
            line["loss"] = None
            line["learning_rates"] = {"hidden": 0.5}
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = rows_of(run_dir, 10)[3]
    assert row["loss"] is None and row["learning_rate_hidden"] == 0.5
    from foreloom.lab.study.results import write_csv

    write_csv(tmp_path / "a.csv", rows_of(run_dir, 10))
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert (
        rows[3]["loss"] == "nan" and rows[3]["learning_rate_hidden"] == "0.5" and rows[1]["learning_rate_hidden"] == ""
    )


def test_several_processes_train_a_run_under_torchrun(trained):
    given = {"recipe": str(trained.folder / "base.yaml"), "num_processes": 2}
    run = as_run(Study("s", (("s", "a", given),)).resolve()[0], trained.folder)
    assert run.command[1:7] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "foreloom"]


def test_parts_are_the_study():
    planned = list(range(11))
    for of in (1, 2, 3, 11, 20):
        parts = [part_of(planned, index, of) for index in range(of)]
        assert sorted(one for part in parts for one in part) == planned
    with pytest.raises(ValueError, match="the index of 3 parts is 0 to 2"):
        part_of(planned, 3, 3)


def test_a_lock_is_one_process_only(tmp_path):
    with locked(tmp_path, "a.b") as lock:
        assert isinstance(lock, Lock)
        assert holder_of(tmp_path, "a.b") == f"process {os.getpid()} on {os.uname().nodename}"
        with locked(tmp_path, "a.b") as other:
            assert other == holder_of(tmp_path, "a.b")
        with locked(tmp_path, "a") as third:
            assert isinstance(third, Lock)
    assert holder_of(tmp_path, "a.b") == "" and list(tmp_path.iterdir()) == []


def test_a_killed_process_keeps_no_lock(tmp_path):
    text = (
        "import sys, time; from pathlib import Path; from foreloom.lab.study.locks import locked\n"
        "with locked(Path(sys.argv[1]), 'a'): print('has it', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", text, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "has it\n"
    with locked(tmp_path, "a") as lock:
        assert lock == holder_of(tmp_path, "a") != ""
    process.kill()
    process.wait()
    with locked(tmp_path, "a") as lock:
        assert isinstance(lock, Lock) and lock.path.name == "a.2"
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_is_free_when_it_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)
    path = tmp_path / "a.1"
    path.write_text(json.dumps({"here": "elsewhere" + HERE, "host": "far", "pid": 1}))
    assert holder_of(tmp_path, "a") == "process 1 on far"
    os.utime(path, (time.time() - 100, time.time() - 100))
    with locked(tmp_path, "a") as lock:
        assert isinstance(lock, Lock) and lock.path.name == "a.2" and not lock.is_lost
        # It sleeps, and another takes over: when it wakes up it knows.
        (tmp_path / "a.3").write_text("{}")
        deadline = time.monotonic() + 10
        while not lock.is_lost:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (tmp_path / "a.3").is_file()  # which is not its own


def test_a_run_in_other_hands_is_left_to_them(trained, capsys):
    results = trained.folder / "results"
    with locked(results / "pair" / ".locks", "fine"):
        assert execute(trained.planned[:1], results, GO_ON) == 0
        (status,) = status_of(trained.planned[:1], results)
        assert status.state == "running" and status.words.startswith("process ")
    assert "1 of 1 runs are in the hands of other processes: fine" in capsys.readouterr().err


def test_a_process_that_has_lost_a_run_writes_nothing_of_it(trained, tmp_path, capsys, monkeypatch):
    """It slept, another took the run over and finished it."""
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)
    results = tmp_path / "results"
    shutil.copytree(trained.folder / "results", results, symlinks=True)
    shutil.rmtree(results / "pair" / "runs" / "fine")

    def train(run, stop, earlier=None, *, resume=False):
        (results / "pair" / ".locks" / "fine.2").write_text("{}")
        while not stop.signal_number:
            time.sleep(0.01)
        return Outcome(run.name, "", [], "", "stopped")

    monkeypatch.setattr(runs, "train", train)
    assert execute(trained.planned[:1], results, GO_ON) == 0
    assert json.loads((results / "pair" / "config_fine.json").read_text())["outcome"]["status"] == "finished"
    said = capsys.readouterr().err
    assert "is lost to a process" in said and "1 of 1 runs are in the hands of other processes: fine" in said


def test_a_run_that_diverged_is_told_and_not_begun_again(trained, tmp_path, capsys, monkeypatch):
    planned = Study("s", (("s", "wild", {"recipe": str(trained.folder / "base.yaml"), "steps": 4}),)).resolve()
    asked = []

    def train(run, stop, earlier=None, *, resume=False):
        asked.append(run.name)
        run.folder.mkdir(parents=True)
        step = {
            "kind": "step", "step": 2, "loss": None, "loss_terms": 8, "learning_rate": 9.0, "flops": 1.0,
            "seconds": 1.0, "num_non_finite_steps": 2, "learning_rates": {}, "grad_norm": None, "num_rows": 8,
            "rows_per_step": 4.0, "steps_per_second": 2.0,
        }  # fmt: skip
        (run.folder / "metrics.jsonl").write_text(json.dumps(step) + "\n")
        return Outcome(run.name, "", [], "", "failed", 3, "error: the loss is not finite")

    monkeypatch.setattr(runs, "train", train)
    for _ in range(2):
        assert execute(planned, tmp_path, GO_ON) == 0
    assert asked == ["wild"] and "has diverged before" in capsys.readouterr().err
    (status,) = status_of(planned, tmp_path)
    assert status.state == "diverged"
    (row,) = csv.DictReader((tmp_path / "s" / "wild.csv").open())
    assert math.isnan(float(row["loss"]))
