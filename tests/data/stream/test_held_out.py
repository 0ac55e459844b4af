"""Validation windows: horizons in the holdout only, one set on every world size, bounded and evenly spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.held_out import ValidationWindows, validation_samples
from foreloom.data.stream.selection import select


def source_of(*lengths: int, variates: int = 1) -> MemorySource:
    """Values are the steps' own numbers."""
    return MemorySource([Series(str(n), np.tile(np.arange(float(k)), (variates, 1))) for n, k in enumerate(lengths)])


def config_of(*holdouts: int, **settings) -> DataConfig:
    sources = tuple(SourceConfig(path=str(number), holdout=holdout) for number, holdout in enumerate(holdouts))
    return DataConfig(sources=sources, **{"context_length": 8, "prediction_length": 3, "min_past": 2} | settings)


def horizons(windows: list) -> list[tuple]:
    """(item, first step, last step) of the horizon of each row that counts."""
    return sorted(
        (int(item), future[0], future[-1])
        for one in windows
        for item, sample, future in zip(one.item_R, one.sample_R, one.future_RH, strict=True)
        if sample >= 0
    )


def test_horizons_tile_the_holdout_and_contexts_reach_before_it() -> None:
    windows = list(ValidationWindows(config_of(7), max_windows=99, opened=[source_of(20, 9, 4)]))
    # 20 steps: 13-15, 16-18; step 19 is left over. 9 steps: the holdout begins at 2, 2-4, 5-7. 4 steps: two of past
    # leave no room for a horizon.
    assert horizons(windows) == [(0, 13, 15), (0, 16, 18), (1, 2, 4), (1, 5, 7)]
    (one,) = windows
    assert one.horizon_only
    row = int(np.flatnonzero((one.item_R == 0) & (one.future_RH[:, 0] == 13))[0])
    assert one.context_RC[row].tolist() == [5, 6, 7, 8, 9, 10, 11, 12]
    by_one = ValidationWindows(config_of(7), max_windows=99, stride=1, opened=[source_of(20)])
    assert horizons(list(by_one)) == [(0, first, first + 2) for first in range(13, 18)]


def test_sources_without_a_holdout_take_no_part_and_a_set_of_its_own_gives_every_step() -> None:
    both = ValidationWindows(config_of(0, 3), max_windows=99, opened=[source_of(50), source_of(12)])
    assert horizons(list(both)) == [(0, 9, 11)]
    own = ValidationWindows(config_of(3), [SourceConfig(path="other")], max_windows=99, opened=[source_of(10)])
    assert horizons(list(own)) == [(0, 2, 4), (0, 5, 7)]
    assert both.without_windows() == own.without_windows() == []


def test_a_source_that_holds_out_less_than_a_horizon_is_named() -> None:
    short = MemorySource([Series("a", np.arange(50.0)[None])], "data/short.parquet")
    mixed = ValidationWindows(config_of(2, 3), max_windows=99, opened=[short, source_of(12)])
    assert horizons(list(mixed)) == [(0, 9, 11)] and mixed.without_windows() == ["short.parquet (holdout 2)"]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=15),
    holdout=st.integers(3, 30),
    stride=st.integers(1, 9),
    micro=st.integers(0, 8),
    world_size=st.integers(1, 4),
    most=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_ranks_share_one_set(lengths, holdout, stride, micro, world_size, most) -> None:
    sources = [source_of(40, *lengths), source_of(45, variates=2)]
    options = {"max_windows": most, "stride": stride, "opened": sources}
    whole = ValidationWindows(config_of(holdout, holdout), **options)
    ranks = [
        ValidationWindows(
            config_of(holdout, holdout), **options, micro_batch_rows=micro, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    batches = [list(one) for one in ranks]
    assert len({len(one) for one in ranks} | {len(one) for one in batches}) == 1
    assert {one.num_windows for one in ranks} == {whole.num_windows}
    assert whole.num_windows <= most
    assert horizons([one for part in batches for one in part]) == horizons(list(whole))
    for one in (windows for part in batches for windows in part):
        assert one.horizon_only
        if (one.sample_R < 0).any():
            assert (one.sample_R < 0).all() and np.isnan(one.future_RH).all()


def test_of_many_windows_evenly_spread_ones_are_taken() -> None:
    source = source_of(*[100] * 10)
    settings = {
        "context_length": 8,
        "prediction_length": 1,
        "least_past": 1,
        "stride": 1,
        "excluded": [np.array([], int)],
    }
    described = SourceConfig(path="a", holdout=50)
    samples = validation_samples([source], [described], max_windows=25, **settings)
    assert np.bincount(samples.item_M).tolist() == [3, 2] * 5
    assert len(validation_samples([source], [described], max_windows=10_000, **settings)) == 500
    some = SourceConfig(path="a", holdout=50, max_series=3)
    samples = validation_samples([source], [some], max_windows=10_000, **settings)
    assert np.unique(samples.item_M).tolist() == select(source, 2, 3, 50).items.tolist()
    assert len(samples) == 150


def test_scales_of_series_are_those_of_the_training_part() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(9, 4, 60)
    values[50:] += 1000
    config = config_of(10, normalization="zero", normalization_scope="series")
    windows = next(iter(ValidationWindows(config, max_windows=9, opened=[MemorySource([Series("a", values[None])])])))
    expected = (values - values[:50].mean()) / values[:50].std()
    np.testing.assert_allclose(windows.future_RH[0], expected[50:53], rtol=1e-5)


def test_nothing_to_validate_on() -> None:
    with pytest.raises(ValueError, match=r"nothing to validate on: set data\.sources\.N\.holdout"):
        ValidationWindows(config_of(0), max_windows=9, opened=[source_of(50)])
    with pytest.raises(ValueError, match=r"no horizon of 3 steps fits into what is held out \(2 steps"):
        ValidationWindows(config_of(2), max_windows=9, opened=[source_of(50)])


def test_a_value_out_of_all_proportion_is_left_out_and_named() -> None:
    values = np.random.default_rng(0).normal(5, 1, (4, 20))
    values[1, 18], values[2, 17], values[3, 3] = 1e30, 1e4, 1e30
    series = [Series(f"s{n}", row[None], past={"x": row * 0 + 1e19}) for n, row in enumerate(values)]
    held_out = ValidationWindows(config_of(3), max_windows=99, opened=[MemorySource(series, "shop")])
    assert held_out.left_out() == []
    for _ in range(2):
        (windows,) = held_out
        counts = np.isfinite(windows.future_RH).any(axis=1) & (windows.role_R == 0)
        assert windows.item_R[counts].tolist() == [0, 2, 3]
        assert held_out.left_out() == ["series 's1' of shop, steps 18 to 20 (1e+30)"]
    assert held_out.largest_value(windows) == "series 's0' of shop, steps 18 to 20 (1e+19)"


def test_why_nothing_counts() -> None:
    rows = np.random.default_rng(0).normal(5, 1, (7, 20))
    rows[0], rows[1, 17:], rows[2, :17] = np.nan, np.nan, np.nan
    rows[3], rows[4], rows[5, 18] = 1e39, 5.0, 1e30
    source = MemorySource([Series(str(n), row[None]) for n, row in enumerate(rows)], "shop")
    held_out = ValidationWindows(config_of(3), max_windows=99, opened=[source])
    list(held_out)
    reasons = held_out.why_nothing_counts().split("; ")
    assert reasons[0].startswith("of 7 windows, 2 have no value to forecast (the first: series '0' of shop, steps 18")
    for reason in (
        "1 have no value in their past (the first: series '2'",
        "1 hold values beyond float32 (3.4e38) to forecast (the first: series '3'",
        "1 have a flat past, which gives the model no scale (the first: series '4'",
        "1 hold a value a million times farther away than their past reaches (the first: series '5'",
        "1 have values, and none that the model counts (the first: series '6'",
    ):
        assert any(reason in one for one in reasons), reason
