"""The loader: row budgets, micro-batches, reading ahead, state, and failures that reach the reader."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreloom.data.config import DataConfig, GroupConfig, SourceConfig
from foreloom.data.loader import ReadAhead, StepBatch, plan_micro_batches
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.dataset import SeriesDataset
from loaders import series_loader


def sources() -> list[MemorySource]:
    rng = np.random.default_rng(0)
    univariate = [Series(str(n), rng.normal(size=(1, int(length)))) for n, length in enumerate(rng.integers(5, 90, 40))]
    multivariate = [Series(str(n), rng.normal(size=(3, 70)), past={"x": rng.normal(size=70)}) for n in range(5)]
    return [MemorySource(univariate, "univariate"), MemorySource(multivariate, "multivariate")]


def config(**settings) -> DataConfig:
    defaults = {"context_length": 32, "prediction_length": 8, "group": GroupConfig(probability=0.3, max_size=4)}
    return DataConfig(sources=(SourceConfig(path="a", weight=3), SourceConfig(path="b")), **defaults | settings)


def loader(rank: int = 0, world_size: int = 1, *, seed: int = 0, batch_size: int = 24, micro: int = 0, **settings):
    return series_loader(
        config(**settings),
        seed=seed,
        batch_size=batch_size,
        micro_batch_size=micro,
        rank=rank,
        world_size=world_size,
        sources=sources(),
    )


def assert_equal(a: StepBatch, b: StepBatch) -> None:
    assert (a.first_sample, a.next_sample, a.num_rows) == (b.first_sample, b.next_sample, b.num_rows)
    assert len(a.micro_batches) == len(b.micro_batches)
    for left, right in zip(a.micro_batches, b.micro_batches, strict=True):
        for name in ("context_RC", "future_RH", "role_R", "group_R", "sample_R", "source_R", "item_R"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


def read_ahead_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "foreloom-read-ahead"]


def test_batches_fill_up_to_the_row_budget_and_follow_one_another() -> None:
    ours = loader(micro=10)
    position = 0
    for _, batch in zip(range(20), ours, strict=False):
        assert batch.first_sample == position
        position = batch.next_sample
        rows_of_last = sum(int((w.sample_R == position - 1).sum()) for w in batch.micro_batches)
        assert batch.num_rows >= 24 > batch.num_rows - rows_of_last
        assert sum(windows.num_rows for windows in batch.micro_batches) == batch.num_rows
        for windows in batch.micro_batches:
            assert windows.num_rows <= 10
            assert windows.context_RC.shape == (windows.num_rows, windows.context_RC.shape[1])
            assert windows.future_RH.shape == (windows.num_rows, 8)
            assert not np.isnan(windows.context_RC).all(axis=0)[0]  # padded to the longest, no further
            for sample in np.unique(windows.sample_R):
                assert len(np.unique(windows.group_R[windows.sample_R == sample])) == 1
            assert len(np.unique(windows.group_R)) == len(np.unique(windows.sample_R))
    ours.close()


def test_reading_ahead_changes_nothing() -> None:
    plain, one, four = (loader(num_prefetch=depth, micro=8) for depth in (0, 1, 4))
    for _, batch, *others in zip(range(12), plain, one, four, strict=False):
        for ahead, other in zip((one, four), others, strict=True):
            assert_equal(batch, other)
            assert plain.state_dict() == ahead.state_dict()
    one.close()
    four.close()
    assert not read_ahead_threads()


def test_state_is_that_of_the_batch_handed_out() -> None:
    ours = loader(num_prefetch=4)
    iterator = iter(ours)
    batches = [next(iterator) for _ in range(5)]
    state = ours.state_dict()
    assert state["next_sample"] == batches[-1].next_sample
    expected = [next(iterator) for _ in range(3)]
    ours.close()

    resumed = loader()
    resumed.load_state_dict(state)
    for want, got in zip(expected, resumed, strict=False):
        assert_equal(want, got)
    resumed.close()
    assert_equal(ours.batch(expected[1].first_sample), expected[1])


def test_state_of_other_data_is_refused() -> None:
    state = loader().state_dict()
    loader(batch_size=12, num_prefetch=0).load_state_dict(state)
    for other in (loader(seed=1), loader(context_length=16), loader(group=GroupConfig())):
        with pytest.raises(ValueError, match="data are not those this run was stopped with"):
            other.load_state_dict(state)


def test_what_differs_in_the_data_is_named(tmp_path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()

    def opened(**settings):
        one = DataConfig(
            sources=(SourceConfig(path=str(folder)),), **{"context_length": 4, "prediction_length": 2} | settings
        )
        return series_loader(one, seed=settings.pop("seed", 0), batch_size=2)

    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text("[1, 2, 3, 4, 5, 6, 7]\n" * 9)
    state = opened().state_dict()

    def refused(**settings) -> str:
        with pytest.raises(ValueError, match="data are not those this run was stopped with: ") as caught:
            opened(**settings).load_state_dict(state)
        return str(caught.value)

    assert "data.context_length was 4, is 5. Restore" in refused(context_length=5)
    assert "data.min_past was None, is 3; " not in refused(min_past=3) and "data.min_past was None" in refused(
        min_past=3
    )
    (folder / "b.jsonl").write_text("[1, 2, 3, 4, 5, 6, 8]\n" * 9)
    sentence = refused()
    assert "what lies at data.sources.0.path was " in sentence and "file b.jsonl of data.sources.0 was " in sentence
    assert "a.jsonl" not in sentence
    (folder / "b.jsonl").unlink()
    assert "file b.jsonl of data.sources.0 was " in refused() and ", is absent. Restore" in refused()
    del state["made_of"]  # as earlier versions wrote it
    assert "a file, the mixture, what is excluded, a setting of data or the seed has changed" in refused()


class Broken(MemorySource):
    def fill_window(self, item, cut, context_RC, future_RH):
        raise ValueError(f"series {item} cannot be read: the disk is gone")


@pytest.mark.parametrize("num_prefetch", [0, 2])
def test_a_failure_surfaces_where_the_batch_is_asked_for(num_prefetch) -> None:
    broken = Broken([Series("a", np.zeros((1, 50)))])
    one = DataConfig(
        sources=(SourceConfig(path="a"),), context_length=8, prediction_length=4, num_prefetch=num_prefetch
    )
    ours = series_loader(one, seed=0, batch_size=2, sources=[broken])
    with pytest.raises(ValueError, match="series 0 cannot be read: the disk is gone"):
        next(iter(ours))
    ours.close()
    assert not read_ahead_threads()


def test_threads_end_when_the_iterator_is_dropped_or_the_loader_closed() -> None:
    ours = loader(num_prefetch=2)
    iterator = iter(ours)
    next(iterator)
    assert len(read_ahead_threads()) == 1
    del iterator
    assert not read_ahead_threads()
    iterator = iter(ours)
    next(iterator)
    ours.close()
    ours.close()
    assert not read_ahead_threads()
    assert list(iterator) == []


def test_a_process_that_forgets_to_close_ends(tmp_path) -> None:
    script = tmp_path / "forgetful.py"
    script.write_text(
        "import numpy as np\n"
        "from foreloom.data.loader import BatchLoader\n"
        "from foreloom.data.stream.dataset import SeriesDataset\n"
        "from foreloom.data.source import MemorySource\n"
        "from foreloom.data.config import DataConfig, SourceConfig\n"
        "from foreloom.data.source import Series\n"
        "config = DataConfig(sources=(SourceConfig(path='a'),), context_length=8, prediction_length=4)\n"
        "source = MemorySource([Series('a', np.zeros((1, 50)))])\n"
        "batches = iter(BatchLoader(SeriesDataset(config, seed=0, sources=[source]), batch_size=4))\n"
        "print(next(batches).num_rows)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


def test_read_ahead_stays_within_its_depth_and_ends() -> None:
    made = []

    def numbers():
        for number in range(6):
            made.append(number)
            yield number

    ahead = ReadAhead(numbers(), depth=2)
    assert next(ahead) == 0
    assert len(made) <= 4
    assert list(ahead) == [1, 2, 3, 4, 5]
    ahead.close()


def test_statistics() -> None:
    first, second = loader().dataset.statistics()
    lengths = sources()[0].lengths
    assert (first.name, first.share) == ("univariate", 0.75)
    assert first.left_out["too short"] == int((lengths < 16).sum()) > 0
    assert first.num_items == 40 - first.left_out["too short"]
    assert (second.left_out["too short"], second.num_items) == (0, 5)
    assert (first.roles, second.roles) == ("1 target", "3 targets; past: x")


def test_the_roles_are_those_of_all_series() -> None:
    """A covariate of one series in two hundred, of the last ones; columns of one value a series are named, too."""
    y = np.arange(60.0)
    some = [Series(str(n), y[None], static={"shop": n, "variates": "y"}) for n in range(200)]
    some[77] = Series("77", y[None], past={"visits": y})
    some += [Series(str(n), y[None], past={"rain": y}, future={"price": y}) for n in range(200, 203)]
    (told,) = SeriesDataset(
        DataConfig(sources=(SourceConfig(path="a"),), context_length=32, prediction_length=8),
        seed=0,
        sources=[MemorySource(some)],
    ).statistics()
    assert told.roles == "1 target; past: rain, visits; known ahead: price; static: shop"


def test_masked_copies_count_nothing() -> None:
    batches = [loader(rank, 4, batch_size=1).batch(0) for rank in range(4)]
    masked = [batch for batch in batches if len(batch.samples) == 0]
    assert len(masked) == 3
    for batch in masked:
        (windows,) = batch.micro_batches
        assert (windows.sample_R == -1).all()
        assert np.isnan(windows.future_RH).all()
        assert np.isfinite(windows.context_RC).any()


SAMPLES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 2048)), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(SAMPLES, st.integers(1, 5), st.integers(0, 20))
def test_every_sample_once_within_the_budget(samples, world_size, budget) -> None:
    rows, steps = (np.array(column) for column in zip(*samples, strict=True))
    plan = plan_micro_batches(rows, steps, world_size=world_size, micro_batch_size=budget)
    assert len(plan) == world_size
    assert len({len(micro_batches) for micro_batches in plan}) == 1
    positions = np.concatenate([positions for micro_batches in plan for positions in micro_batches])
    assert sorted(positions) == list(range(len(samples)))
    for micro_batches in plan:
        if not budget:
            assert len(micro_batches) == 1
        for positions in micro_batches:
            assert not budget or rows[positions].sum() <= budget or len(positions) == 1


def test_equal_samples_are_shared_out_evenly() -> None:
    plan = plan_micro_batches(np.ones(96, int), np.full(96, 512), world_size=3, micro_batch_size=16)
    assert [[len(positions) for positions in rank] for rank in plan] == [[16, 16]] * 3
    plan = plan_micro_batches(np.ones(97, int), np.full(97, 512), world_size=3)
    assert sorted(len(rank[0]) for rank in plan) in ([31, 33, 33], [32, 32, 33])


def test_lengths_are_bucketed_and_neighbours_run_together() -> None:
    rng = np.random.default_rng(0)
    steps = rng.integers(16, 2049, 256)
    plan = plan_micro_batches(np.ones(256, int), steps, world_size=2, micro_batch_size=16)
    padded = sum(len(p) * steps[p].max() for rank in plan for p in rank if len(p))
    assert padded / steps.sum() < 1.12
    for left, right in zip(*plan, strict=True):
        assert steps[left].min() >= steps[right].max()


def test_one_micro_batch_a_rank_balances_the_padded_area() -> None:
    rng = np.random.default_rng(1)
    steps = rng.integers(16, 2049, 256)
    plan = plan_micro_batches(np.ones(256, int), steps, world_size=4)
    areas = [len(rank[0]) * steps[rank[0]].max() for rank in plan]
    assert max(areas) / np.mean(areas) < 1.15


def test_fewer_samples_than_ranks_leave_empty_places() -> None:
    plan = plan_micro_batches(np.array([3, 2]), np.array([10, 20]), world_size=4)
    assert sorted(len(rank[0]) for rank in plan) == [0, 0, 1, 1]
