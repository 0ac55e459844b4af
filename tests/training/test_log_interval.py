"""What a run's log lines say of its time, its clipping and its experts."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.loader import BatchLoader
from foreloom.distributed.process import Process
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.monitoring.record import TIME_PARTS
from foreloom.training.log_interval import DataWatch
from loaders import series_loader
from toy_run import build_trainer, data_of
from toy_text import NO_TARGET


def train(run_dir: Path, **settings) -> list[dict]:
    build_trainer(Process(0, 1, 0, torch.device("cpu")), run_dir, settings).train()
    return read_metrics(run_dir).steps


def test_the_parts_of_a_run_fill_its_time(tmp_path):
    steps = train(tmp_path, steps=12, log_steps=3, save_steps=4, validation={"steps": 5})
    assert all(tuple(step["seconds_by_part"]) == TIME_PARTS for step in steps)
    logged = sum(sum(step["seconds_by_part"].values()) for step in steps)
    assert logged == pytest.approx(steps[-1]["seconds"], rel=0.2, abs=0.05)
    spent = [{part: seconds > 0 for part, seconds in step["seconds_by_part"].items()} for step in steps]
    assert all(one["forward_backward"] and one["optimizer"] and one["data_wait"] for one in spent)
    training = [sum(step["seconds_by_part"].values()) for step in steps]
    for step, whole in zip(steps, training, strict=True):
        pauses = step["seconds_by_part"]["evaluation"] + step["seconds_by_part"]["checkpoint"]
        assert 3 / step["steps_per_second"] == pytest.approx(whole - pauses)
        assert 0 <= step["data_wait_share"] <= 1
        assert step["step_seconds_p50"] <= step["step_seconds_p95"]
        assert step["mfu"] is None
    assert steps[1]["seconds_by_part"]["checkpoint"] > 10 * steps[0]["seconds_by_part"]["checkpoint"]


@pytest.mark.parametrize("family", ["toy_tokens", "toy_recurrent"])
def test_loss_terms_are_the_targets_of_the_data(tmp_path, family):
    """However a batch is cut, however often it is logged, and across a resume."""
    settings = {"family": family, "steps": 6, "save_steps": 3}
    dataset = data_of(settings | {"batch_size": 24})[1]
    drawn = dataset.draw(0, 24 * 6)
    targets = dataset.gather(drawn, np.arange(24 * 6)).target_RT != NO_TARGET
    counted = np.cumsum(targets.reshape(6, -1).sum(1)).tolist()
    whole = train(tmp_path / "whole", **settings)
    assert [(step["step"], step["loss_terms"]) for step in whole] == list(enumerate(counted, start=1))
    cut = train(tmp_path / "cut", **settings, micro_batch_size=3, log_steps=4)
    assert [(step["step"], step["loss_terms"]) for step in cut] == [(4, counted[3]), (6, counted[5])]
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "step-00000006")
    (tmp_path / "whole" / "checkpoints" / "final").unlink()
    assert [step["loss_terms"] for step in train(tmp_path / "whole", **settings, resume=True)] == counted


def test_clipped_steps_are_counted_between_log_lines_too_and_across_a_resume(tmp_path):
    whole = train(tmp_path / "whole", steps=9, log_steps=1)
    norms = [step["grad_norm"] for step in whole]
    clipped = [sum(norm >= 0.99 for norm in norms[: i + 1]) for i in range(9)]  # the limit is 1
    assert [step["num_clipped_steps"] for step in whole] == clipped
    assert clipped[-1] > 0
    coarse = train(tmp_path / "coarse", steps=9, log_steps=4)
    assert [(step["step"], step["num_clipped_steps"]) for step in coarse] == [
        (4, clipped[3]), (8, clipped[7]), (9, clipped[8])
    ]  # fmt: skip


def test_loads_are_what_the_tally_holds(tmp_path):
    steps = train(tmp_path, steps=2, log_steps=1, family="time_moe")
    for step in steps:
        ((name, load_LE),) = step["loads"].items()
        assert name == "expert_load"
        assert [len(load_E) for load_E in load_LE] == [4, 4]
        assert sum(load_LE[0]) == sum(load_LE[1]) > 0


DATA = Path(__file__).resolve().parents[2] / "examples" / "data" / "m3_monthly.parquet"


def loader(num_prefetch: int) -> BatchLoader:
    config = DataConfig(
        sources=(SourceConfig(path=str(DATA)),), context_length=32, prediction_length=8, num_prefetch=num_prefetch
    )
    return series_loader(config, seed=1, batch_size=16)


def wait_for(is_true) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_full_queue_and_an_empty_one():
    of = loader(num_prefetch=3)
    watch = DataWatch(of)
    batches = iter(of)
    next(batches)
    wait_for(lambda: of.counts().num_ready == 3)
    watch.record()
    for _ in range(4):
        next(batches)
        wait_for(lambda: of.counts().num_ready == 3)
    full = watch.record()
    assert (full.queue_depth, full.num_ready, full.queue_fill) == (3, 3, 1.0)
    assert full.num_series == of.dataset.statistics()[0].num_items > 0
    assert full.mapped_bytes == of.dataset.statistics()[0].num_bytes > 0 and full.unit == "series"
    assert 0 < full.build_seconds < 5

    make = of.batch
    of.batch = lambda first: (time.sleep(0.05), make(first))[1]  # slower than training
    for _ in range(8):
        next(batches)
    starved = watch.record()
    assert starved.queue_fill < 0.5  # the first three were there
    assert starved.build_seconds > 0.05
    of.close()


def test_without_a_background_reader_there_is_no_queue():
    of = loader(num_prefetch=0)
    watch = DataWatch(of)
    batches = iter(of)
    for _ in range(3):
        next(batches)
    record = watch.record()
    assert (record.queue_depth, record.queue_fill, record.num_ready) == (0, 0.0, 0)
    assert record.build_seconds > 0
    assert watch.record().build_seconds == pytest.approx(0.0)  # nothing since
