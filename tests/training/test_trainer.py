from __future__ import annotations

import errno
import itertools
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foreloom.data.loader import StepBatch
from foreloom.data.stream.windows import Windows
from foreloom.distributed.process import Process
from foreloom.training.incidents import FutileRunError
from foreloom.training.trainer import Trainer
from toy_run import CONTEXT_LENGTH, PREDICTION_LENGTH, ScriptedBenchmark, build_trainer, losses, train_here, weights

PROCESS = Process(0, 1, 0, torch.device("cpu"))


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def spoil(trainer: Trainer, step: int, change: Callable[[Windows], Windows]) -> None:
    """Change the windows of one step's batch on their way to the trainer."""
    original = trainer._step

    def spoiled(batch: StepBatch) -> None:
        if trainer.progress.step + 1 == step:
            batch = replace(batch, micro_batches=[change(windows) for windows in batch.micro_batches])
        original(batch)

    trainer._step = spoiled  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: replace(w, future_RH=np.full_like(w.future_RH, np.inf)), "loss inf"),
        (lambda w: replace(w, future_RH=np.full_like(w.future_RH, np.nan)), "none of its samples"),
    ],
)
def test_a_step_without_a_finite_gradient_changes_nothing_and_is_told(
    tmp_path: Path, change: Callable[[Windows], Windows], reason: str
) -> None:
    trainer = build_trainer(PROCESS, tmp_path, {"steps": 4})
    seen: list[list[torch.Tensor]] = []
    spoil(trainer, 3, change)
    original = trainer._step

    def watched(batch: StepBatch) -> None:
        original(batch)
        state = [tensor for moments in trainer.optimizer_step.optimizer.state.values() for tensor in moments.values()]
        seen.append([tensor.detach().clone() for tensor in (*trainer.optimizer_step.parameters, *state)])

    trainer._step = watched  # type: ignore[method-assign]
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[2], seen[3], strict=True))
    assert all(tensor.isfinite().all() for tensor in seen[3])
    (event,) = events(tmp_path, "skipped_step")
    first, last = trainer.loader.batch(0), trainer.loader.batch(trainer.loader.batch(0).next_sample)
    assert event["step"] == 3 and event["samples"][0] == last.next_sample > first.next_sample
    assert reason in event["sentence"]
    assert [record["num_skipped_steps"] for record in events(tmp_path, "step")] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("skipped", "settings", "last", "sentence"),
    [
        (
            range(3, 99),
            {"steps": 20, "max_skipped_steps": 4, "log_steps": 2},
            6,
            r"none of the last 4 .*loss inf.* Lower",
        ),
        (range(1, 99), {"steps": 3}, 3, "no step of the run has changed a weight.* none of its samples .*data inspect"),
        (range(2, 99), {"steps": 3}, None, ""),
    ],
)
def test_a_run_that_learns_nothing_ends_with_advice(
    tmp_path: Path, skipped: range, settings: dict[str, Any], last: int | None, sentence: str
) -> None:
    trainer = build_trainer(PROCESS, tmp_path, settings)
    value = np.inf if "max_skipped_steps" in settings else np.nan
    for step in skipped:
        spoil(trainer, step, lambda w: replace(w, future_RH=np.full_like(w.future_RH, value)))
    if last is None:
        assert trainer.train().exit_code == 0
        return
    with pytest.raises(FutileRunError, match=sentence) as caught:
        trainer.train()
    assert caught.value.exit_code == 3
    assert list(losses(tmp_path))[-1] == last and not list((tmp_path / "checkpoints").iterdir())


def test_dry_run_changes_no_state(tmp_path: Path) -> None:
    trainer = build_trainer(PROCESS, tmp_path, {"dropout": 0.2})
    before = [p.detach().clone() for p in trainer.optimizer_step.parameters]
    trainer._check_ranks()
    trainer.optimizer_step.rehearse(trainer.loader.largest(), accumulates=True)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.optimizer_step.parameters, strict=True))
    assert all(p.grad is None for p in trainer.optimizer_step.parameters)
    for moments in trainer.optimizer_step.optimizer.state.values():
        assert not any(tensor.any() for tensor in moments.values())
    assert trainer.loader.state_dict()["next_sample"] == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Tried to allocate"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError("Unable to allocate 9 GiB"),
    ],
)
def test_out_of_memory_in_the_dry_run_is_a_sentence(tmp_path: Path, error: Exception) -> None:
    sizes = {"batch_size": 24, "micro_batch_size": 8}
    trainer = build_trainer(PROCESS, tmp_path, sizes)

    def forward(**arguments: Any) -> None:
        raise error

    trainer.parallel.model.forward = forward  # type: ignore[method-assign, assignment]
    size = r"micro-batch of {} with 32 context and 8 future steps does not fit on cpu"
    with pytest.raises(ValueError, match=size.format("1 row") + r".*Set training\.activation_checkpointing"):
        trainer.train()
    trainer.optimizer_step._restartable = False
    with pytest.raises(ValueError, match=size.format("8 rows") + r".*Set training\.micro_batch_size below 8"):
        trainer.optimizer_step.rehearse(
            build_trainer(PROCESS, tmp_path / "b", sizes).loader.largest(), accumulates=False
        )


def test_worst_case_has_full_lengths_and_the_batch_s_groups(tmp_path: Path) -> None:
    loader = build_trainer(PROCESS, tmp_path, {"batch_size": 60}).loader
    drawn, worst = loader.batch(0).micro_batches[0], loader.largest()
    assert worst.num_rows == drawn.num_rows >= 60
    assert worst.context_RC.shape[1] == CONTEXT_LENGTH and worst.future_RH.shape[1] == PREDICTION_LENGTH
    assert np.isfinite(worst.context_RC).all() and np.isfinite(worst.future_RH).all()
    sizes = lambda windows: np.unique(windows.group_R, return_counts=True)[1]
    assert sorted(sizes(worst)) == sorted(sizes(drawn)) and sizes(worst).max() > 1


def test_activation_checkpointing_and_precision(tmp_path: Path) -> None:
    settings = {"family": "chronos2", "steps": 3}
    train_here(tmp_path / "plain", **settings)
    train_here(tmp_path / "recompute", **settings, activation_checkpointing=True)
    assert losses(tmp_path / "recompute") == losses(tmp_path / "plain")
    train_here(tmp_path / "bf16", **settings, precision="bf16")
    assert losses(tmp_path / "bf16") != losses(tmp_path / "plain")
    for step, loss in losses(tmp_path / "plain").items():
        assert math.isclose(losses(tmp_path / "bf16")[step], loss, rel_tol=1e-2)
    assert all(weight.dtype == torch.float32 for weight in weights(tmp_path / "bf16").values())


def test_benchmark_scores_reach_the_manifest_and_a_full_disk_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = ScriptedBenchmark(tmp_path, {4: 0.25, 6: 1 / 6})
    trainer = build_trainer(PROCESS, tmp_path, {"steps": 6, "save_steps": 3}, benchmark=benchmark)
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        if trainer.progress.step == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    result = trainer.train()
    assert benchmark.asked == [(4, False), (6, False)] and result.exit_code == 0
    (event,) = events(tmp_path, "checkpoint_failed")
    assert "step 3 could not be written" in event["sentence"] and "the disk is full" in event["sentence"]
    folders = sorted((tmp_path / "checkpoints").glob("step-*"))
    assert [folder.name for folder in folders] == ["step-00000004", "step-00000006"]
    scores = [json.loads((folder / "manifest.json").read_text())["scores"] for folder in folders]
    assert scores == [{"wql": 0.25}, {"wql": 1 / 6}]


def test_what_comes_after_the_last_log_line_takes_time_too(tmp_path: Path, monkeypatch) -> None:
    hours = itertools.count(1)
    monkeypatch.setattr(Trainer, "_run_seconds", lambda self: 3600.0 * next(hours))
    result = build_trainer(PROCESS, tmp_path, {"steps": 2}).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (end,) = (line for line in lines if line["kind"] == "finish")
    assert end["result"]["time"] == f"{next(hours) - 1}h 0m" != f"{result.seconds / 3600:.0f}h 0m"


def test_a_finished_run_resumes_to_nothing(tmp_path: Path) -> None:
    first = train_here(tmp_path, steps=3)
    again = train_here(tmp_path, steps=3, resume=True)
    assert again.step == first.step == 3 and again.loss == first.loss and again.checkpoint == first.checkpoint
    longer = train_here(tmp_path, steps=5, resume=True)
    assert longer.step == 5 and list(losses(tmp_path)) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="has made 5 steps, and training.steps is 3: .* Give more than 5"):
        train_here(tmp_path, steps=3, resume=True)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"trainer": {"laps": 3}}, r"keeps something else of its trainer \(.*'laps'.*written by foreloom"),
        ({"laps": {}}, "keeps 'laps', which is not known here: it was written by foreloom"),
    ],
)
def test_a_position_of_another_version_is_named(tmp_path: Path, part: dict[str, Any], sentence: str) -> None:
    train_here(tmp_path, steps=2)
    trainer = build_trainer(PROCESS, tmp_path, {"steps": 4, "resume": True})
    original = trainer.checkpointer.load

    def load(*arguments: Any) -> dict[str, Any]:
        position = original(*arguments)
        return {name: position.get(name, {}) | part.get(name, {}) for name in {**position, **part}}

    trainer.checkpointer.load = load  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=sentence):
        trainer.train()
    assert (tmp_path / "checkpoints" / "step-00000002").is_dir()
