"""The stream: pure, uniform where it says so, groups of distinct series; windows a stride apart, each once an epoch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreloom.data.config import DataConfig, GroupConfig, SourceConfig
from foreloom.data.hashing import integers, random_bits, uniform
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.draw import SampleStream
from foreloom.data.stream.selection import select
from loaders import series_loader


def source_of(*lengths: int, variates: int = 1) -> MemorySource:
    return MemorySource([Series(str(n), np.zeros((variates, length))) for n, length in enumerate(lengths)], "toy")


def stream_of(*sources, seed=0, name="train", **settings) -> SampleStream:
    config = DataConfig(
        sources=tuple(SourceConfig(path=str(number)) for number in range(len(sources))),
        **{"context_length": 32, "prediction_length": 4, "min_past": 6} | settings,
    )
    selections = [select(source, config.min_length) for source in sources]
    return SampleStream(sources, selections, config, seed=seed, stream=name)


def assert_same(a, b) -> None:
    for name in ("source_N", "num_rows_N", "length_N", "item_M", "cut_M"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_random_numbers_are_uniform_and_independent_of_use_and_seed() -> None:
    index = np.arange(200_000)
    a = uniform(1, "train", "cut", index)
    assert 0 <= a.min() < 1e-4 < 1 - 1e-4 < a.max() < 1
    counts = np.bincount((a * 64).astype(int), minlength=64)
    assert ((counts - 3125) ** 2 / 3125).sum() < 110  # chi-square, 63 degrees: the 99.99 % point is 117
    for other in (
        uniform(2, "train", "cut", index),
        uniform(1, "validation", "cut", index),
        uniform(1, "train", "s", index),
    ):
        assert abs(np.corrcoef(a, other)[0, 1]) < 0.01
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < 0.01
    assert len(np.unique(random_bits(1, "train", "cut", index))) == len(index)
    assert set(integers(0, "s", "u", index[:1000], 7).tolist()) == set(range(7))


@pytest.mark.parametrize("probability", [0.0, 0.6])
def test_a_sample_does_not_depend_on_what_is_drawn_with_it(probability) -> None:
    stream = stream_of(
        source_of(*range(12, 40)),
        source_of(50, 60, variates=3),
        group=GroupConfig(probability=probability, max_size=5),
    )
    whole = stream.draw(0, 100)
    assert_same(stream.draw(0, 100), whole)
    for first, count in ((0, 1), (37, 20), (99, 1)):
        part = stream.draw(first, count)
        members = slice(whole.offsets_N[first], whole.offsets_N[first + count])
        assert part.first == first
        np.testing.assert_array_equal(part.item_M, whole.item_M[members])
        np.testing.assert_array_equal(part.cut_M, whole.cut_M[members])
        np.testing.assert_array_equal(part.num_rows_N, whole.num_rows_N[first : first + count])
        np.testing.assert_array_equal(part.source_N, whole.source_N[first : first + count])
    assert not np.array_equal(stream.draw(100, 100).item_M, whole.item_M)


def test_cuts_are_uniform_over_all_places() -> None:
    samples = stream_of(source_of(30, 30, 30)).draw(0, 100_000)
    cuts, counts = np.unique(samples.cut_M * 3 + samples.item_M, return_counts=True)
    assert cuts.tolist() == list(range(3 * 6, 3 * 27))  # min_past ... length - prediction_length, of each series
    expected = 100_000 / 63
    assert ((counts - expected) ** 2 / expected).sum() < 108  # chi-square, 62 degrees: the 99.97 % point
    np.testing.assert_array_equal(samples.length_N, samples.cut_M)


def test_series_choice() -> None:
    source = source_of(10, 19, 109)  # 1, 10 and 100 cuts
    uniform_share = np.bincount(stream_of(source).draw(0, 60_000).item_M) / 60_000
    np.testing.assert_allclose(uniform_share, [1 / 3] * 3, atol=0.01)
    by_length = np.bincount(stream_of(source, series_choice="length").draw(0, 60_000).item_M) / 60_000
    np.testing.assert_allclose(by_length, np.array([1, 10, 100]) / 111, atol=0.005)


def test_groups_are_distinct_univariate_series_of_one_source_with_aligned_ends() -> None:
    lengths = [20, 20, 25, 9, 40, 21]
    univariate, multivariate = source_of(*lengths), source_of(30, 30, variates=2)
    group = GroupConfig(probability=0.5, min_size=2, max_size=8)
    samples = stream_of(univariate, multivariate, group=group).draw(0, 8000)
    sizes = np.diff(samples.offsets_N)
    assert set(sizes[samples.source_N == 1]) == {1}
    assert abs((sizes[samples.source_N == 0] > 1).mean() - 0.5) < 0.03
    assert sizes.max() == 5  # series 3 is too short, so there are five
    seen = np.zeros(6, dtype=int)
    for number in np.flatnonzero(sizes > 1):
        members = slice(samples.offsets_N[number], samples.offsets_N[number + 1])
        items, cuts = samples.item_M[members], samples.cut_M[members]
        assert len(set(items)) == len(items)
        assert len(set(np.array(lengths)[items] - cuts)) == 1
        assert cuts.min() >= 6
        seen[items] += 1
    assert seen[3] == 0
    others = seen[[0, 1, 2, 4, 5]]
    assert others.min() / others.max() > 0.9
    assert samples.num_rows_N[sizes > 1].tolist() == sizes[sizes > 1].tolist()


def test_groups_are_any_set_of_series_equally_likely() -> None:
    group = GroupConfig(probability=1, min_size=3, max_size=3)
    samples = stream_of(source_of(*[12] * 8), group=group).draw(0, 100_000)
    members = np.sort(samples.item_M.reshape(-1, 3), axis=1)
    _, counts = np.unique(members @ [64, 8, 1], return_counts=True)
    expected = 100_000 / 56
    assert len(counts) == 56  # 8 choose 3
    assert ((counts - expected) ** 2 / expected).sum() < 98  # chi-square, 55 degrees: the 99.97 % point


def test_short_series_are_counted_and_left_out() -> None:
    source = source_of(9, 10, 3, 50)
    selection = select(source, 10)
    assert selection.items.tolist() == [1, 3]
    assert selection.num_short == 2
    assert set(stream_of(source).draw(0, 200).item_M) == {1, 3}


def test_a_holdout_is_never_drawn() -> None:
    source = source_of(9, 17, 30)
    selection = select(source, 10, holdout=7)
    assert (selection.items.tolist(), selection.num_short) == ([1, 2], 1)
    config = DataConfig(
        sources=(SourceConfig(path="0", holdout=7),), context_length=32, prediction_length=4, min_past=6
    )
    samples = SampleStream([source], [selection], config, seed=0).draw(0, 2000)
    ends = samples.cut_M + config.prediction_length
    assert (source.lengths[samples.item_M] - ends).min() == 7
    assert set(samples.cut_M[samples.item_M == 1]) == {6}
    assert set(samples.cut_M[samples.item_M == 2]) == set(range(6, 20))
    with pytest.raises(ValueError, match=r"shorter than 40 steps \(min_past \+ prediction_length \+ holdout 30\)"):
        select(source, 10, holdout=30)


def test_all_series_short_is_an_error_that_lists_their_lengths() -> None:
    with pytest.raises(ValueError, match=r"toy: all 3 series are shorter than 10 steps .* lengths are 9, 4, 2\. Lower"):
        select(source_of(4, 9, 2), 10)
    with pytest.raises(ValueError, match=r"all 30 series .* 9, 9, 9, .*\.\.\. 2 \(longest first\)"):
        select(source_of(*[9] * 29, 2), 10)


def test_max_series_is_a_fixed_choice() -> None:
    source = source_of(*[20] * 500)
    few = select(source, 10, max_series=50).items
    assert len(few) == len(set(few)) == 50
    assert few.tolist() == sorted(few)
    assert set(few) < set(select(source, 10, max_series=80).items)
    assert few.max() > 250
    assert select(source, 10, max_series=1000).items.tolist() == list(range(500))


CASES = ("L32_none_zero", "L16_s5_zero", "L32_none_none", "L16_s1_max", "L20_s50_zero")


def ramps(*lengths: int, variates: int = 1, name: str = "toy") -> MemorySource:
    return MemorySource(
        [Series(str(n), np.arange(variates * k).reshape(variates, k)) for n, k in enumerate(lengths)], name
    )


def loader_of(*sources, batch_size: int = 7, rank: int = 0, world_size: int = 1, holdout: int = 0, **settings):
    config = DataConfig(
        sources=tuple(SourceConfig(path=str(number), holdout=holdout) for number in range(len(sources))),
        **{"context_length": 12, "prediction_length": 4, "min_past": 2, "stride": 5, "num_prefetch": 0} | settings,
    )
    return series_loader(
        config, seed=1, batch_size=batch_size, rank=rank, world_size=world_size, sources=sources, micro_batch_size=4
    )


def windows_of(loader, num_samples: int) -> list[tuple]:
    """(source, item, first observed value of the context, last of the horizon) of each sample, in stream order."""
    found: dict[int, tuple] = {}
    first = 0
    while first < num_samples:
        batch = loader.batch(first)
        first = batch.next_sample
        for windows in batch.micro_batches:
            for row, sample in enumerate(windows.sample_R.tolist()):
                context = windows.context_RC[row]
                begin = context[~np.isnan(context)][0]
                key = (int(windows.source_R[row]), int(windows.item_R[row]), begin, windows.future_RH[row, -1])
                if 0 <= sample < num_samples:
                    found.setdefault(sample, key)
    return [found[sample] for sample in sorted(found)]


@pytest.mark.parametrize("case", CASES)
def test_windows_equal_the_published_ones(shared, case) -> None:
    folder = shared / "oracles" / "time_moe" / "data" / "windows"
    facts = json.loads((folder / "cases.json").read_text())[case]
    expected = np.load(folder / "windows.npz")
    length = facts["max_length"]
    config = DataConfig(
        sources=(SourceConfig(path=str(folder / "small.jsonl")),),
        context_length=length,
        prediction_length=1,
        min_past=1,
        stride=facts["stride"] or length,
        normalization=facts["normalization"] or "none",
        normalization_scope="series" if facts["normalization"] else "context",
        num_prefetch=0,
    )
    loader = series_loader(config, seed=0, batch_size=facts["num_windows"])
    assert loader.dataset.num_epoch_samples == facts["num_windows"] == len(expected[f"{case}_index"])
    (windows,) = loader.batch(0).micro_batches
    ours = []
    for item, context, future in zip(windows.item_R, windows.context_RC, windows.future_RH, strict=True):
        values = np.concatenate([context, future])
        values = values[~np.isnan(values)]
        ours.append((int(item), np.pad(values, (0, length + 1 - len(values))), len(values) - 1))
    theirs = []
    for (item, _), inputs, labels, mask in zip(
        *(expected[f"{case}_{name}"] for name in ("index", "input_ids", "labels", "loss_masks")), strict=True
    ):
        # A short window: its last value is a label only, and the input is padded from there on.
        num_labels = int(mask.sum())
        values = np.zeros(length + 1, np.float32)
        values[:num_labels], values[num_labels] = inputs[:num_labels], labels[num_labels - 1]
        theirs.append((int(item), values, num_labels))
    order = lambda one: (one[0], *one[1].round(4).tolist())
    for (item, values, num_labels), (its_item, its_values, its_num) in zip(
        sorted(ours, key=order), sorted(theirs, key=order), strict=True
    ):
        assert (item, num_labels) == (its_item, its_num)
        np.testing.assert_allclose(values, its_values, atol=1e-6)


def test_offsets_of_long_and_short_series() -> None:
    # 12 + 4 steps a window: 27 steps hold offsets 0, 5, 10; the tail of the last step is dropped. 9 steps hold one
    # short window, 5 none.
    loader = loader_of(ramps(27, 9, 5, 16), variates := ramps(17, variates=2, name="two"))
    assert loader.dataset.num_epoch_samples == 3 + 1 + 1 + 1
    statistics = loader.dataset.statistics()
    assert [one.num_epoch_samples for one in statistics] == [5, 1]
    assert [one.share for one in statistics] == [5 / 6, 1 / 6]
    assert (statistics[0].left_out["too short"], len(variates)) == (1, 1)
    assert sorted(windows_of(loader, 6)) == [
        (0, 0, 0.0, 15.0),
        (0, 0, 5.0, 20.0),
        (0, 0, 10.0, 25.0),
        (0, 1, 0.0, 8.0),
        (0, 3, 0.0, 15.0),
        (1, 0, 0.0, 15.0),
    ]
    held_out = loader_of(ramps(27), holdout=2)
    assert sorted(windows_of(held_out, 2)) == [(0, 0, 0.0, 15.0), (0, 0, 5.0, 20.0)]
    assert held_out.dataset.num_epoch_samples == 2
    assert loader_of(ramps(27, 40, 30, 60), stride=None).dataset.num_epoch_samples is None


@given(
    lengths=st.lists(st.integers(6, 60), min_size=1, max_size=12),
    stride=st.integers(1, 20),
    batch_size=st.integers(1, 30),
    world_size=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_every_window_once_an_epoch_whatever_the_batches_and_ranks(lengths, stride, batch_size, world_size) -> None:
    sources = [ramps(*lengths), ramps(20, 33, variates=2)]
    alone = loader_of(*sources, stride=stride, batch_size=batch_size)
    num_windows = alone.dataset.num_epoch_samples
    assert num_windows is not None
    stream = windows_of(alone, 2 * num_windows)
    epochs = stream[:num_windows], stream[num_windows:]
    expected = {
        (0, item, offset, offset + min(length, 16) - 1)
        for item, length in enumerate(lengths)
        for offset in range(0, max(length - 16, 0) + 1, stride)
    }
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == num_windows
        assert {key for key in epoch if key[0] == 0} == expected
    if num_windows > 12:
        assert epochs[0] != epochs[1]

    first, seen, num_batches = 0, [], 0.0
    while first < num_windows:
        parts = [
            loader_of(*sources, stride=stride, batch_size=batch_size, rank=rank, world_size=world_size).batch(first)
            for rank in range(world_size)
        ]
        assert len({part.next_sample for part in parts}) == 1
        seen += np.concatenate([part.samples for part in parts]).tolist()
        num_batches += min(1.0, (num_windows - first) / (parts[0].next_sample - first))
        first = parts[0].next_sample
    assert alone.num_epoch_batches == pytest.approx(num_batches)
    assert sorted(seen) == list(range(first))


def test_an_epoch_of_samples_that_overfill_their_batches() -> None:
    # A batch of 4 rows is one sample of 7: rows / batch_size would make it 1.75 times as many.
    loader = loader_of(ramps(*range(20, 26), variates=7), stride=1, batch_size=4)
    assert loader.num_epoch_batches == loader.dataset.num_epoch_samples
    loader = loader_of(ramps(*range(20, 26), variates=7), stride=1, batch_size=32)
    assert loader.num_epoch_batches == loader.dataset.num_epoch_samples / 5


def test_a_run_goes_on_where_it_stopped_in_the_middle_of_an_epoch() -> None:
    loader = loader_of(ramps(*range(20, 60)))
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    state = loader.state_dict()
    resumed = loader_of(ramps(*range(20, 60)))
    resumed.load_state_dict(state)
    want, got = next(batches), next(iter(resumed))
    assert (want.first_sample, want.next_sample) == (got.first_sample, got.next_sample)
    for a, b in zip(want.micro_batches, got.micro_batches, strict=True):
        np.testing.assert_array_equal(a.context_RC, b.context_RC)
    other = loader_of(ramps(*range(20, 60)), stride=4)
    with pytest.raises(ValueError, match="data are not those this run was stopped with"):
        other.load_state_dict(state)


def test_settings_without_effect_are_errors() -> None:
    one = SourceConfig(path="a")
    lengths = {"context_length": 8, "prediction_length": 4, "stride": 2}
    with pytest.raises(ValueError, match=r"a source's weight has no effect with data\.stride"):
        DataConfig(sources=(one, SourceConfig(path="b", weight=2)), **lengths)
    with pytest.raises(ValueError, match="series_choice and group have no effect"):
        DataConfig(sources=(one,), series_choice="length", group=GroupConfig(probability=0.5), **lengths)
    with pytest.raises(ValueError, match="normalization_scope 'series' has no effect where normalization is 'none'"):
        DataConfig(sources=(one,), normalization_scope="series", **lengths)
