"""A synthetic source: fingerprints, memory, windows, threads, and the loader's laws."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from foreloom.data.config import DataConfig, GroupConfig, SourceConfig
from foreloom.data.convert import convert
from foreloom.data.formats.reader import open_source
from foreloom.data.inspect import inspect
from foreloom.data.loader import BatchLoader, StepBatch
from foreloom.data.source import Prepares
from foreloom.data.stream.held_out import ValidationWindows
from foreloom.data.synthetic.source import SyntheticSource
from loaders import series_loader


def loader(rank: int = 0, world_size: int = 1, **settings) -> BatchLoader:
    given = {
        "sources": (
            SourceConfig(path="synth://kernel?length=200", weight=2, holdout=16),
            SourceConfig(path="synth://patterns?length=80..300&num_series=500"),
            SourceConfig(path="synth://tsmixup?length=64..256&num_series=1000"),
        ),
        "context_length": 96,
        "prediction_length": 16,
        "group": GroupConfig(probability=0.3, max_size=4),
        "num_prefetch": 0,
    } | settings
    return series_loader(
        DataConfig(**given), seed=1, batch_size=40, micro_batch_size=16, rank=rank, world_size=world_size
    )


def rows(batches: list[StepBatch]) -> set[tuple]:
    """The rows of a global batch, padding taken off; rows that only fill up are not among them."""
    return {
        (int(w.sample_R[r]), w.context_RC[r][~np.isnan(w.context_RC[r])].tobytes(), w.future_RH[r].tobytes())
        for batch in batches
        for w in batch.micro_batches
        for r in range(w.num_rows)
        if w.sample_R[r] >= 0
    }


def test_fingerprint_is_of_all_that_decides():
    texts = [
        "kernel", "kernel?seed=1", "kernel?length=100", "kernel?length=100..1024", "kernel?num_series=9",
        "kernel?max_kernels=4", "patterns",
    ]  # fmt: skip
    assert len({open_source(f"synth://{text}").fingerprint for text in texts}) == len(texts)
    same = "synth://kernel?length=1024&max_kernels=5"
    assert open_source(same).fingerprint == open_source("synth://kernel").fingerprint


def test_the_first_fingerprints_still_hold():
    """Runs stopped in the past go on: count `_VERSION` up only where series have changed, and then this."""
    found = [open_source(f"synth://{name}").fingerprint for name in ("kernel", "patterns")]
    assert found == ["d1f51da184e2d9222c1858361c176169", "03f992545726047149cbac5509ee2827"]
    kernel = open_source("synth://kernel?length=64").read(12).target_VT[0, ::16]
    np.testing.assert_allclose(kernel, [1.229885, -0.1453712, 1.181057, -0.03249171], rtol=1e-5)


def test_a_billion_series_take_no_memory():
    tracemalloc.start()
    source = open_source("synth://kernel?num_series=1000000000&length=512")
    used_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(source) == 10**9 and source.lengths[-1] == 512 and source.num_rows[-1] == 1
    assert used_bytes < 5e6
    assert source.read(999_999_999).item_id == "kernel-999999999"


def test_lengths_of_a_range_are_uniform_and_series_prefixes():
    source = open_source("synth://kernel?length=50..60&num_series=11000")
    counts = np.bincount(source.lengths)[50:]
    assert len(counts) == 11 and counts.min() > 850 and counts.max() < 1150
    whole = open_source("synth://kernel?length=60&num_series=11000")
    for item in (0, 5, 999):
        ours, theirs = (one.read(item).target_VT[0] for one in (source, whole))
        np.testing.assert_array_equal(ours, theirs[: len(ours)])


def test_windows_are_cut_out_of_series():
    source = open_source("synth://kernel?length=100")
    context, future = np.full((1, 30), np.nan), np.full((1, 8), np.nan)
    assert sum(source.fill_window(77, 40, context, future)) == 1
    values = source.read(77).target_VT[0]
    np.testing.assert_array_equal(context[0], values[10:40])
    np.testing.assert_array_equal(future[0], values[40:48])


class Counting:
    """A maker that counts what it makes."""

    def __init__(self, maker):
        self.maker = maker
        self.kinds = maker.kinds
        self.batches: list[int] = []

    def make(self, item_B, length_B):
        self.batches.append(len(item_B))
        return self.maker.make(item_B, length_B)


def counted(address: str) -> tuple[SyntheticSource, Counting]:
    source = SyntheticSource(address, open_source)
    source._maker = counting = Counting(source._maker)
    return source, counting


def test_what_is_gathered_together_is_made_at_once_and_kept_until_the_next():
    source, counting = counted("synth://patterns?length=200&num_series=1000")
    assert isinstance(source, Prepares)
    config = DataConfig(
        sources=(SourceConfig(path="x"),), context_length=64, prediction_length=8, num_prefetch=0,
        normalization="zero", normalization_scope="series",
    )  # fmt: skip
    ours, other = (
        series_loader(config, seed=0, batch_size=64, micro_batch_size=32, sources=[one])
        for one in (source, counted("synth://patterns?length=200&num_series=1000")[0])
    )
    ours.batch(0)
    assert len(counting.batches) == 2 and sum(counting.batches) <= 64
    assert len(source._prepared()) <= 32
    # Whoever goes through the batches in turn has the series of many made at once.
    counting.batches.clear()
    for _, batch in zip(range(2 * 16), ours, strict=False):
        there = np.concatenate([micro.context_RC[:, -1] for micro in batch.micro_batches])
        alone = np.concatenate([micro.context_RC[:, -1] for micro in other.batch(batch.first_sample).micro_batches])
        np.testing.assert_array_equal(there, alone)
    assert len(counting.batches) == 2 and sum(counting.batches) <= 2 * 1024


def test_memory_while_streaming_is_that_of_a_micro_batch():
    source, counting = counted("synth://patterns?length=4096&num_series=100000")
    tracemalloc.start()
    for first in range(0, 2000, 400):
        source.prepare(np.arange(first, first + 400))
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(counting.batches) == 256
    assert most_bytes < 3 * 400 * 4096 * 4 + 8 * 256 * 4096 * 8


def test_each_thread_keeps_its_own():
    source, counting = counted("synth://patterns?length=20&num_series=100")
    source.prepare(np.arange(10))
    expected = source.read(3).target_VT
    there = threading.Thread(target=lambda: source.prepare(np.arange(50, 60)))
    there.start()
    there.join()
    np.testing.assert_array_equal(source.read(3).target_VT, expected)
    assert counting.batches == [10, 10]


def test_a_batch_is_pure():
    ours, fresh = loader(), loader()
    before = [ours.batch(first) for first in (0, 40, 80)]
    assert rows([fresh.batch(80)]) == rows([before[2]])
    assert rows([ours.batch(0)]) == rows([before[0]])


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_read_what_one_reads(world_size):
    whole = loader().batch(40)
    parts = [loader(rank, world_size).batch(40) for rank in range(world_size)]
    assert sum(len(rows([part])) for part in parts) == len(rows(parts)), "no row twice"
    assert rows(parts) == rows([whole])


def test_reading_ahead_and_validating_at_the_same_time():
    plain, ahead = loader(), loader(num_prefetch=3)
    held_out = ValidationWindows(ahead.dataset.config, max_windows=12, opened=ahead.dataset.sources)
    expected = [windows.context_RC for windows in held_out]
    for _, one, other in zip(range(6), plain, ahead, strict=False):
        assert rows([one]) == rows([other])
        for windows, context_RC in zip(held_out, expected, strict=True):
            np.testing.assert_array_equal(windows.context_RC, context_RC)
    ahead.close()


def test_state_of_other_synthetic_data_is_refused():
    state = loader().state_dict()
    loader().load_state_dict(state)
    others = (SourceConfig(path="synth://kernel?length=200&seed=1"),)
    with pytest.raises(ValueError, match="data are not those"):
        loader(sources=others).load_state_dict(state)


def test_written_is_what_is_streamed(tmp_path):
    address = "synth://kernel?num_series=300&length=40..90&seed=3"
    source = open_source(address)
    for name in ("a.arrow", "a.parquet"):
        assert convert(address, tmp_path / name, name.rpartition(".")[2]) == 300
        written = open_source(tmp_path / name)
        for item in (0, 17, 299):
            ours, theirs = source.read(item), written.read(item)
            np.testing.assert_array_equal(ours.target_VT, theirs.target_VT)
            assert (ours.item_id, ours.static) == (theirs.item_id, theirs.static)
            assert theirs.target_VT.dtype == np.float32


def test_inspect(tmp_path):
    report = inspect("synth://patterns?num_series=40&length=100")
    assert (report.path, report.layout) == ("synth://patterns?num_series=40&length=100", "synthetic")
    assert (report.num_series, report.num_points, report.num_duplicates, report.num_bytes) == (40, 4000, 0, 0)
    assert report.static == ("kind",)
