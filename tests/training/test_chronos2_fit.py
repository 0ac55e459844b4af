"""The real trainer follows chronos-forecasting's fit: ten steps, losses, gradient norms and update norms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foreloom.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from foreloom.data.loader import LoaderCounts, StepBatch
from foreloom.data.stream.windows import Role, Windows
from foreloom.distributed.mesh import ParallelConfig
from foreloom.distributed.parallelize import parallelize
from foreloom.distributed.process import Process
from foreloom.models.family import WindowLengths
from foreloom.models.registry import get
from foreloom.monitoring.monitor import Monitor, MonitoringConfig
from foreloom.training.config import TrainingConfig
from foreloom.training.optimizer import OptimizerConfig, build_optimizer
from foreloom.training.trainer import Trainer


class RecordedBatches:
    """A loader that hands out the batches of the recorded fit."""

    def __init__(self, arrays: np.lib.npyio.NpzFile, num_steps: int) -> None:
        self.batches = [recorded_batch(arrays, step) for step in range(num_steps)]
        self.next_sample = 0

    num_prefetch = 0
    accumulates = False
    dataset = SimpleNamespace(statistics=lambda: [SimpleNamespace(num_items=1, num_bytes=0, unit="series")])

    def largest(self) -> Windows:
        return self.batches[0].micro_batches[0]

    def counts(self) -> LoaderCounts:
        return LoaderCounts(0, 0.0, 0, 0, 0)

    def batch(self, first_sample: int) -> StepBatch:
        return self.batches[first_sample]

    def __iter__(self) -> Iterator[StepBatch]:
        while True:
            batch = self.batches[self.next_sample]
            self.next_sample += 1
            yield batch

    def state_dict(self) -> dict:
        return {"next_sample": self.next_sample, "fingerprint": "recorded"}


def recorded_batch(arrays: np.lib.npyio.NpzFile, step: int) -> StepBatch:
    values = {
        name: arrays[f"step{step:02d}_{name}"]
        for name in ("context", "future_target", "future_covariates", "group_ids")
    }
    context, target, known = (values[name] for name in ("context", "future_target", "future_covariates"))
    is_known, has_target = ~np.isnan(known).all(1), ~np.isnan(target).all(1)
    rows = len(context)
    windows = Windows(
        context_RC=context.astype(np.float32),
        future_RH=np.where(is_known[:, None], known, target).astype(np.float32),
        role_R=np.where(is_known, Role.FUTURE, np.where(has_target, Role.TARGET, Role.PAST)).astype(np.int8),
        group_R=values["group_ids"].astype(np.int64),
        sample_R=step * 1000 + np.arange(rows),
        source_R=np.zeros(rows, np.int32),
        item_R=np.zeros(rows, np.int64),
    )
    return StepBatch(first_sample=step, next_sample=step + 1, num_rows=rows, micro_batches=[windows])


def test_trajectory_of_fit(tmp_path: Path, shared: Path) -> None:
    oracle = shared / "oracles" / "chronos"
    expected = json.loads((oracle / "c2a_fit.json").read_text())
    steps = expected["steps"]
    family = get("chronos2")
    config = family.config(
        pretrained=str(oracle / "ckpt" / expected["checkpoint"]), dropout_rate=0.0, reduction="reference"
    )
    data = WindowLengths(64, 24)
    model = family.build(config, data)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    process = Process(0, 1, 0, torch.device("cpu"))
    optimizer = OptimizerConfig(learning_rate=expected["learning_rate"], weight_decay=0.0, schedule="linear")
    trainer = Trainer(
        TrainingConfig(steps=steps, batch_size=12, max_grad_norm=expected["max_grad_norm"]),
        family,
        parallelize(model, family.sharding, ParallelConfig(), process),
        build_optimizer(
            optimizer, model.named_parameters(), family.kinds(model), max_grad_norm=expected["max_grad_norm"]
        ),
        lambda step: optimizer.learning_rate_of(step, steps),
        RecordedBatches(np.load(oracle / "c2a_fit.npz"), steps),  # type: ignore[arg-type]
        process,
        Checkpointer(tmp_path, CheckpointConfig(), process),
        Monitor(tmp_path, steps, MonitoringConfig(log_steps=1, trackers=("none",)), is_main=True),
        flops_per_row=family.flops_per_row(model, data),
    )
    trainer.train()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    records = [SimpleNamespace(**record) for record in records if record["kind"] == "step"]
    assert len(records) == len(expected["log"]) == 10
    for ours, theirs in zip(records, expected["log"], strict=True):
        assert ours.loss == pytest.approx(theirs["loss"], abs=2e-5)
        assert ours.grad_norm == pytest.approx(theirs["grad_norm_preclip"], rel=1e-5)
        assert ours.learning_rate == pytest.approx(theirs["learning_rate"], rel=1e-12)
    after = load_file(tmp_path / "checkpoints" / "final" / "hf" / "model.safetensors")
    for name, norm in expected["update_norms"].items():
        assert (after[name] - before[name]).norm().item() == pytest.approx(norm, rel=1e-4), name
