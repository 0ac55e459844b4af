"""The stream: pure, uniform where it says so, groups of distinct series."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.config import DataConfig, GroupConfig, SourceConfig
from foreloom.data.hashing import integers, random_bits, uniform
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.draw import SampleStream
from foreloom.data.stream.selection import select


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
