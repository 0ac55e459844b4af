"""A loader of series in one call, as tests want it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreloom.data.config import DataConfig
from foreloom.data.loader import BatchLoader
from foreloom.data.source import Source
from foreloom.data.stream.dataset import SeriesDataset


def series_loader(
    config: DataConfig, *, seed: int, stream: str = "train", sources: Sequence[Source] | None = None, **settings: Any
) -> BatchLoader:
    """`settings` are those of `BatchLoader`."""
    dataset = SeriesDataset(config, seed=seed, stream=stream, sources=sources)
    return BatchLoader(dataset, **{"num_prefetch": config.num_prefetch, **settings})
