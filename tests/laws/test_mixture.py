"""Law: mixture weights hold within 1 % over 100k draws, whatever the sizes of the data sets and with `max_series`."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.config import DataConfig, GroupConfig, SourceConfig
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.draw import SampleStream
from foreloom.data.stream.selection import select

NUM_DRAWS = 100_000
SIZES = (900, 100, 3)
WEIGHTS = (0.5, 0.4, 0.1)


@pytest.fixture(scope="module")
def sources() -> list[MemorySource]:
    return [MemorySource([Series(str(n), np.zeros((1, 40))) for n in range(size)]) for size in SIZES]


@pytest.mark.parametrize("max_series", [None, 50])
@pytest.mark.parametrize("series_choice", ["uniform", "length"])
@pytest.mark.parametrize("group_probability", [0.0, 0.5])
def test_weights_hold(sources, max_series, series_choice, group_probability) -> None:
    config = DataConfig(
        sources=tuple(
            SourceConfig(path=str(number), weight=20 * weight, max_series=max_series)
            for number, weight in enumerate(WEIGHTS)
        ),
        context_length=16,
        prediction_length=4,
        series_choice=series_choice,
        group=GroupConfig(probability=group_probability),
    )
    selections = [select(source, config.min_length, max_series) for source in sources]
    samples = SampleStream(sources, selections, config, seed=11).draw(0, NUM_DRAWS)
    shares = np.bincount(samples.source_N, minlength=3) / NUM_DRAWS
    np.testing.assert_allclose(shares, WEIGHTS, atol=0.01)

    first_items = samples.item_M[samples.offsets_N[:-1]]
    for number, size in enumerate(SIZES):
        drawn = first_items[samples.source_N == number]
        counts = np.bincount(drawn, minlength=size)
        expected = min(size, max_series or size)
        assert (counts > 0).sum() == expected
        # Every usable series as often as another, within five standard deviations.
        mean = len(drawn) / expected
        assert np.abs(counts[counts > 0] - mean).max() < 5 * np.sqrt(mean)
