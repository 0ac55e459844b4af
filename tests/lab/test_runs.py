"""Runs: what a recipe costs, the process of a run (its memory, failure and end on demand), what is written of it, and
how far it came. Other programs stand in for trainings, but where a finished one is needed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import in_process
from foreloom import run as product
from foreloom.lab import runs
from foreloom.lab.runs import Run, execute, measure, plan, read_outcomes, run_process, size_of, state_of, train
from foreloom.models import registry
from foreloom.models.family import WindowLengths

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
RECIPE = f"""
model:
  {{family: time_moe, size: test, use_dense: true, horizon_lengths: [8], hidden_size: 16, intermediate_size: 32}}
data:
  sources: [{{path: {DATA}/us_births.parquet, holdout: 16}}]
  context_length: 24
  prediction_length: 8
  normalization: zero
training: {{steps: 3, batch_size: 4, device: cpu, seed: 5, save_steps: 2}}
validation: {{steps: 2}}
monitoring: {{log_steps: 2, trackers: [none]}}
"""
GO_ON = SimpleNamespace(signal_number=0)
MIB = 2**20


@pytest.fixture
def program(tmp_path, monkeypatch):
    """program(text): a run whose process is Python with that text."""

    def build(text: str, name: str = "a") -> Run:
        command = [sys.executable, "-S", "-c", text]
        monkeypatch.setattr(Run, "command", property(lambda run: command))
        recipe = SimpleNamespace(path="none.yaml", sections={"training": SimpleNamespace(steps=5)})
        return Run(recipe, (), tmp_path / name)  # type: ignore[arg-type]

    return build


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """In its study's folder, with the study's record of it."""
    study = tmp_path_factory.mktemp("study")
    (study / "recipe.yaml").write_text(RECIPE)
    run = plan(study / "recipe.yaml", ["optimizer.learning_rate=1e-3"], study / "one")
    (outcome,) = execute([run], study, GO_ON)
    assert outcome.status == "finished", outcome.error
    return run


@pytest.fixture
def copied(finished, tmp_path) -> Run:
    """The same run elsewhere, to be spoilt."""
    shutil.copytree(finished.folder, tmp_path / "one", symlinks=True)
    shutil.copy(finished.folder.parent / "runs.jsonl", tmp_path)
    return dataclasses.replace(finished, folder=tmp_path / "one")


@pytest.mark.parametrize("family", [name for name in registry.names() if registry.get(name).forecaster])
def test_a_size_is_that_of_the_model_a_trainer_builds(family, tmp_path):
    size = "tiny" if family == "chronos_t5" else "test"
    normalization = "max" if family == "time_moe" else "none"
    model = {"model": {"family": family, "size": size}}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(model))
    sources = f"data.sources=[{{path: {DATA}/us_births.parquet}}]"
    lengths = ["data.context_length=48", "data.prediction_length=16", f"data.normalization={normalization}"]
    recipe = product.load(path, [sources, *lengths, "training.steps=7", "training.batch_size=6"])
    one = registry.get(family)
    module = one.build(recipe.sections["model"], recipe.sections["data"])
    found = size_of(recipe)
    assert found.num_steps == 7
    assert found.num_parameters == sum(p.numel() for p in module.parameters())
    assert found.flops_per_step == 6 * one.flops_per_row(module, WindowLengths(48, 16))
    assert found.loss_units == one.loss_units(module)


def test_a_failure_shows_the_last_lines(program):
    run = program("for i in range(50): print('line', i, flush=True)\nraise SystemExit('error: no luck')")
    outcome = train(run, GO_ON)
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    first, *shown = outcome.error.splitlines()
    assert first.startswith("a failed (exit code 1); the end of ") and first.endswith("a.log:")
    assert shown[-2:] == ["line 49", "error: no luck"]
    assert len(shown) == 12


def test_a_process_that_is_killed_has_failed(program):
    outcome = train(program("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), GO_ON)
    assert outcome.exit_code == -9 and "signal 9" in outcome.error


def test_memory_is_that_of_the_process_and_not_of_the_one_that_starts_it(tmp_path):
    text = "import sys, time; x = bytearray(100 << 20); x[::4096] = bytes(len(x[::4096])); time.sleep(0.3)"
    ballast = bytearray(400 * MIB)
    ballast[::4096] = bytes(len(ballast[::4096]))
    for _ in range(2):
        ending = run_process([sys.executable, "-S", "-c", text], tmp_path / "log", GO_ON)
        assert 100 * MIB < ending["peak_bytes"] < 150 * MIB
        ballast = bytearray()


def test_memory_and_time_are_those_of_all_sessions(program):
    text = "import sys, time\nx = bytearray({} << 20); x[::4096] = bytes(len(x[::4096]))\ntime.sleep(0.3); sys.exit(1)"
    first = train(program(text.format(100)), GO_ON)
    second = train(program(text.format(1)), GO_ON, first, resume=True)
    assert second.peak_bytes == first.peak_bytes > 100 * MIB
    assert second.seconds > first.seconds + 0.3
    assert train(program(text.format(1)), GO_ON, first).peak_bytes < 50 * MIB  # begun anew


def test_a_stop_is_passed_on_and_ends_the_list(program, tmp_path, capsys):
    began = time.monotonic()
    run = program("import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\ntime.sleep(60)")
    assert execute([run, run], tmp_path, SimpleNamespace(signal_number=15)) == []
    assert time.monotonic() - began < 20
    outcome = read_outcomes(tmp_path)["a"]
    assert outcome.status == "stopped" and outcome.exit_code in (143, -15)  # told before its handler stood
    assert capsys.readouterr().err == "[1/2] a: 5 steps\nstopped; the same command goes on from here\n"


def test_no_process_outlives_the_one_that_waits_for_it(tmp_path):
    log = tmp_path / "log"

    class SecondCtrlC:
        @property
        def signal_number(self) -> int:
            if log.stat().st_size:
                raise KeyboardInterrupt
            return 0

    text = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_process([sys.executable, "-S", "-c", text], log, SecondCtrlC())  # type: ignore[arg-type]
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_one_failure_does_not_end_the_list(program, tmp_path, capsys):
    runs = [program("raise SystemExit(3)", name) for name in ("a", "b")]
    assert [outcome.exit_code for outcome in execute(runs, tmp_path, GO_ON)] == [3, 3]
    assert list(read_outcomes(tmp_path)) == ["a", "b"]
    execute(runs[1:], tmp_path, GO_ON)  # tried again
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["a", "b", "b"]
    assert "b failed (exit code 3); the end of " in capsys.readouterr().err
    (tmp_path / "runs.jsonl").write_text(lines[0] + '\n{"name": "b"\n')
    with pytest.raises(ValueError, match=r"runs\.jsonl:2: not an outcome of a run"):
        read_outcomes(tmp_path)


def test_what_is_written_of_a_finished_run(finished):
    outcome = read_outcomes(finished.folder.parent)["one"]
    assert (outcome.recipe, outcome.overrides) == (str(finished.recipe.path), ["optimizer.learning_rate=1e-3"])
    assert (outcome.status, outcome.exit_code, outcome.error) == ("finished", 0, "")
    assert (outcome.num_steps, outcome.num_rows) == (3, 12)
    size = size_of(finished.recipe)
    assert outcome.num_parameters == size.num_parameters
    assert outcome.flops == pytest.approx(3 * size.flops_per_step)
    assert 0 < outcome.training_seconds < outcome.seconds
    assert 50 * MIB < outcome.peak_bytes < 3000 * MIB and outcome.device_peak_bytes is None
    assert [step for step, _ in outcome.curve] == [0, 2, 3]
    assert outcome.loss == outcome.curve[-1][1] > 0 and outcome.training_loss > 0


def test_a_finished_run_is_not_run_again(copied, tmp_path, capsys):
    record = (tmp_path / "runs.jsonl").read_text()
    (outcome,) = execute([copied], tmp_path, GO_ON)
    assert outcome.peak_bytes and (tmp_path / "runs.jsonl").read_text() == record
    assert "was there already" in capsys.readouterr().err
    # Trained since by another program: new numbers, and nothing is known of its memory.
    metrics = copied.folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"data_wait": ', '"data_wait": 1'))
    (other,) = execute([copied], tmp_path, GO_ON)
    assert other.training_seconds > outcome.training_seconds + 0.9 and other.peak_bytes is None
    assert other.num_parameters == outcome.num_parameters and read_outcomes(tmp_path) == {"one": other}


def test_a_run_that_was_begun_goes_on(copied, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "run_process", in_process.run_process)
    (copied.folder / "checkpoints" / "final").unlink()
    shutil.rmtree(copied.folder / "checkpoints" / "step-00000003")
    (outcome,) = execute([copied], tmp_path, GO_ON)
    assert outcome.status == "finished" and "finished after" in capsys.readouterr().err
    assert "step 2" in copied.log.read_text() and outcome.num_steps == 3
    earlier, _ = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    assert outcome.loss == earlier["loss"]
    (copied.folder / "checkpoints" / "final").unlink()  # killed just before the end
    assert measure(copied)["num_steps"] == 3


def test_how_far_a_run_has_come(copied, tmp_path):
    assert state_of(copied) == "finished"
    assert state_of(dataclasses.replace(copied, folder=tmp_path / "none")) == "absent"
    other = plan(copied.recipe.path, ["training.batch_size=8"], copied.folder)
    with pytest.raises(ValueError, match="one holds a run of other settings; give another --out"):
        execute([other], tmp_path, GO_ON)
    manifest = copied.folder / "checkpoints" / "final" / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"fingerprint": "of other data"}))
    with pytest.raises(ValueError, match="data that have changed since"):
        state_of(copied)
    (copied.folder / "checkpoints" / "final").unlink()
    assert state_of(copied) == "begun"
    (copied.folder / "metrics.jsonl").unlink()
    assert state_of(copied) == "absent"
