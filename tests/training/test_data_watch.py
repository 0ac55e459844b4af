"""The data engine's figures, live, while a background thread reads ahead."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.loader import BatchLoader
from foreloom.training.log_interval import DataWatch
from loaders import series_loader

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
    assert full.mapped_bytes == of.dataset.statistics()[0].num_bytes > 0
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
