"""Incidents: which losses stand out, and that the batch of a step that went wrong is found again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foreloom.data.loader import BatchLoader
from foreloom.distributed.process import Process
from foreloom.monitoring.metrics_file import read_records
from foreloom.training.incidents import Incidents, LossSpikes, anchors, position_of
from foreloom.training.log_interval import StepOutcome
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


def test_a_spike_is_told_with_the_command_that_shows_its_batch(tmp_path: Path) -> None:
    incidents = Incidents(tmp_path)
    for step in range(1, 51):
        assert incidents.note(outcome(step, 1.0 + step % 5 / 10)) is None
    resumed = Incidents(tmp_path)
    resumed.load_state_dict(json.loads(json.dumps(incidents.state_dict())))
    incident = resumed.note(outcome(51, 7.0))
    assert incident is not None and incident.kind == "loss_spike" and incident.deviations > 6
    assert "Step 51: the loss jumped to 7, " in incident.sentence
    assert f"foreloom data replay {tmp_path} 51" in incident.sentence
    skipped = resumed.note(outcome(52, math.nan))
    assert skipped is not None and skipped.kind == "skipped_step" and f"replay {tmp_path} 52" in skipped.sentence


def test_a_run_that_meets_a_bad_batch_tells_where_it_lies(tmp_path: Path) -> None:
    trainer = build_trainer(PROCESS, tmp_path, {"steps": 4})
    original = trainer._step

    def spoiled(batch) -> None:
        if trainer.progress.step == 2:
            infinite = [replace(one, future_RH=np.full_like(one.future_RH, np.inf)) for one in batch.micro_batches]
            batch = replace(batch, micro_batches=infinite)
        original(batch)

    trainer._step = spoiled  # type: ignore[method-assign]
    trainer.train()
    records = list(read_records(tmp_path))
    (incident,) = [record for record in records if record["kind"] == "skipped_step"]
    assert incident["step"] == 3 and incident["loss"] is None
    place = position_of(3, anchors(records), 4, lambda size: BatchLoader(trainer.loader.dataset, batch_size=size))
    assert place.first_sample == incident["samples"][0]
    facts = place.loader.dataset.facts(place.loader.drawn(place.first_sample))
    batch = trainer.loader.batch(place.first_sample)
    assert {one["sample"] for one in facts} == set(batch.samples.tolist())
    assert sorted(one["item"] for one in facts) == sorted(
        item for windows in batch.micro_batches for item in windows.item_R.tolist()
    )
