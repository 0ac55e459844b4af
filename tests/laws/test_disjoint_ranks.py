"""Law: ranks draw disjoint samples whose union is what one rank draws, whatever the world size, batch by batch."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.config import DataConfig, GroupConfig, SourceConfig
from foreloom.data.loader import BatchLoader, StepBatch
from foreloom.data.source import MemorySource, Series
from loaders import series_loader
from toy_text import ToyText


@pytest.fixture(scope="module")
def sources() -> list[MemorySource]:
    rng = np.random.default_rng(0)
    univariate = [Series(str(n), rng.normal(size=(1, length))) for n, length in enumerate(rng.integers(20, 200, 60))]
    multivariate = [Series(str(n), rng.normal(size=(2, 100)), future={"b": rng.normal(size=100)}) for n in range(6)]
    return [MemorySource(univariate), MemorySource(multivariate)]


def loader(sources, rank: int, world_size: int, **settings) -> BatchLoader:
    config = DataConfig(
        sources=(SourceConfig(path="a"), SourceConfig(path="b")),
        context_length=64,
        prediction_length=8,
        group=GroupConfig(probability=0.4, max_size=5),
        num_prefetch=0,
    )
    settings = {"batch_size": 40, "micro_batch_size": 8, "seed": 3} | settings
    return series_loader(config, rank=rank, world_size=world_size, sources=sources, **settings)


def rows(batches: list[StepBatch]) -> dict[tuple, tuple]:
    """Every row by (sample, place in the sample): the values themselves, padding taken off."""
    found: dict[tuple, tuple] = {}
    for batch in batches:
        for windows in batch.micro_batches:
            places: dict[int, int] = {}
            for row, sample in enumerate(windows.sample_R.tolist()):
                if sample < 0:
                    assert np.isnan(windows.future_RH[row]).all()
                    continue
                place = places[sample] = places.get(sample, -1) + 1
                context = windows.context_RC[row]
                facts = (windows.source_R[row], windows.item_R[row], windows.role_R[row])
                assert (sample, place) not in found, "a row was read twice"
                found[sample, place] = (context[~np.isnan(context)].tobytes(), windows.future_RH[row].tobytes(), facts)
    return found


@pytest.mark.parametrize("micro_batch_size", [0, 8])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_are_disjoint_and_together_equal_one_rank(sources, world_size, micro_batch_size) -> None:
    alone = iter(loader(sources, 0, 1))
    ranks = [iter(loader(sources, rank, world_size, micro_batch_size=micro_batch_size)) for rank in range(world_size)]
    for _ in range(6):
        whole = next(alone)
        parts = [next(rank) for rank in ranks]
        assert {(p.first_sample, p.next_sample, p.num_rows) for p in parts} == {
            (whole.first_sample, whole.next_sample, whole.num_rows)
        }
        assert len({len(part.micro_batches) for part in parts}) == 1
        samples = np.concatenate([part.samples for part in parts])
        assert sorted(samples) == list(range(whole.first_sample, whole.next_sample))
        assert rows(parts) == rows([whole])


def test_a_run_stopped_on_two_ranks_goes_on_with_any_number(sources) -> None:
    two = [loader(sources, rank, 2) for rank in range(2)]
    iterators = [iter(one) for one in two]
    for _ in range(5):
        for iterator in iterators:
            next(iterator)
    states = [one.state_dict() for one in two]
    assert states[0] == states[1]
    expected = rows([next(iterator) for iterator in iterators])
    for world_size in (1, 3, 4):
        parts = []
        for rank in range(world_size):
            resumed = loader(sources, rank, world_size)
            resumed.load_state_dict(states[0])
            parts.append(next(iter(resumed)))
        assert rows(parts) == expected


def test_fewer_samples_than_ranks(sources) -> None:
    whole = loader(sources, 0, 1, batch_size=2).batch(0)
    parts = [loader(sources, rank, 4, batch_size=2).batch(0) for rank in range(4)]
    assert rows(parts) == rows([whole])
    assert sum(len(part.samples) == 0 for part in parts) >= 2
    assert {len(part.micro_batches) for part in parts} == {1}


def test_another_seed_or_stream_draws_other_samples(sources) -> None:
    base = rows([loader(sources, 0, 1).batch(0)])
    assert rows([loader(sources, 0, 1, seed=4).batch(0)]) != base
    assert rows([loader(sources, 0, 1, stream="validation").batch(0)]) != base
    assert rows([loader(sources, 0, 1).batch(0)]) == base


@pytest.mark.parametrize("num_lanes", [None, 12])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_text_is_shared_like_series_and_a_stream_stays_on_its_rank(num_lanes, world_size) -> None:
    settings = {"batch_size": 12, "micro_batch_size": 2, "num_prefetch": 0}
    whole = BatchLoader(ToyText(num_lanes), **settings)
    ranks = [
        BatchLoader(ToyText(num_lanes), **settings, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    lanes: list[set[tuple[int, ...]]] = [set() for _ in ranks]
    first = 0
    for _ in range(6):
        batch, parts = whole.batch(first), [rank.batch(first) for rank in ranks]
        samples = np.concatenate([part.samples for part in parts])
        assert sorted(samples) == batch.samples.tolist() == list(range(first, first + 12))
        for seen, part in zip(lanes, parts, strict=True):
            seen.add(tuple(part.samples - first))
        first = batch.next_sample
    assert num_lanes is None or all(len(seen) == 1 for seen in lanes)
