"""The flight recorder: which losses stand out, and what is written down of a step that went wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foreloom.data.replay import replay_batch
from foreloom.distributed.process import Process
from foreloom.training.flight import MAX_RECORDS, FlightRecorder, LossSpikes
from foreloom.training.interval import StepOutcome
from toy_run import build_trainer

PROCESS = Process(0, 1, 0, torch.device("cpu"))


def heights(losses: list[float]) -> list[float | None]:
    spikes = LossSpikes()
    return [spikes.note(loss) for loss in losses]


def test_spikes_stand_out_from_noise_and_from_what_was_seen_lately() -> None:
    rng = np.random.default_rng(0)
    losses = (3 - np.arange(300) / 200 + 0.1 * rng.normal(size=300)).tolist()
    assert heights(losses) == [None] * 300, "a falling, noisy loss has none"
    losses[20] = losses[100] = losses[101] = losses[170] = 9.0
    losses[200] = 30.0
    found = {step: height for step, height in enumerate(heights(losses)) if height is not None}
    assert found.keys() == {100, 170, 200}, "none in the first 50 steps, nor what was as high within the last 50"
    assert min(found.values()) > 6
    assert not any(heights([2.0] * 60 + [2.05] * 60)), "within 1 % a deviation"
    assert heights([2.0] * 60 + [2.2])[-1] == pytest.approx(10.0)


def outcome(step: int, loss: float, first_sample: int = 24) -> StepOutcome:
    return StepOutcome(step=step, first_sample=first_sample, next_sample=first_sample + 20, loss=loss, grad_norm=1.0,
                       count=5.0)  # fmt: skip


def test_a_spike_is_written_with_the_windows_of_its_batch(tmp_path: Path) -> None:
    loader = build_trainer(PROCESS, tmp_path, {}).loader
    recorder = FlightRecorder(loader, tmp_path, is_main=True)
    for step in range(1, 51):
        assert recorder.note(outcome(step, 1.0 + step % 5 / 10)) is None
    resumed = FlightRecorder(loader, tmp_path, is_main=True)
    resumed.load_state_dict(json.loads(json.dumps(recorder.state_dict())))
    incident = resumed.note(outcome(51, 7.0))
    assert incident is not None and incident.kind == "loss_spike"
    assert "Step 51: the loss jumped to 7, " in incident.sentence and "flight/step-00000051.json" in incident.sentence
    assert f"foreloom data replay {tmp_path} 51" in incident.sentence
    written = json.loads((tmp_path / "flight" / "step-00000051.json").read_text())
    assert (written["kind"], written["loss"], written["first_sample"]) == ("loss_spike", 7.0, 24)
    batch = loader.batch(24)
    assert {window["sample"] for window in written["windows"]} == set(batch.samples.tolist())
    assert sorted(window["item"] for window in written["windows"]) == sorted(
        item for windows in batch.micro_batches for item in windows.item_R.tolist()
    )
    assert {window["series"] for window in written["windows"]} == {
        window.facts.series for window in replay_batch(loader, 24)
    }


def test_records_end_at_a_number_and_are_dropped_on_resume(tmp_path: Path) -> None:
    loader = build_trainer(PROCESS, tmp_path, {"batch_size": 2}).loader
    recorder = FlightRecorder(loader, tmp_path, is_main=True)
    for step in range(1, MAX_RECORDS + 3):
        incident = recorder.note(outcome(step, math.nan))
        assert incident is not None and incident.kind == "skipped_step"
        assert (incident.file is not None) == (step <= MAX_RECORDS)
    names = lambda: sorted(path.name for path in (tmp_path / "flight").iterdir())
    assert len(names()) == MAX_RECORDS
    recorder.resume(7)
    assert names()[-1] == "step-00000007.json"


def test_a_run_that_meets_a_bad_batch_records_it(tmp_path: Path) -> None:
    trainer = build_trainer(PROCESS, tmp_path, {"steps": 4})
    original = trainer._step

    def spoiled(batch) -> None:
        if trainer.progress.step == 2:
            infinite = [replace(one, future_RH=np.full_like(one.future_RH, np.inf)) for one in batch.micro_batches]
            batch = replace(batch, micro_batches=infinite)
        original(batch)

    trainer._step = spoiled  # type: ignore[method-assign]
    trainer.train()
    assert [path.name for path in (tmp_path / "flight").iterdir()] == ["step-00000003.json"]
    assert "its windows are in flight/step-00000003.json" in (tmp_path / "training.log").read_text().lower()
