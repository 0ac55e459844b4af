"""Batches of synthetic series."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from foreloom.data.synthetic.process import Draws


@pytest.fixture
def batch_of():
    """batch_of(process, items, num_steps, **settings) -> its series (B, T) and their kinds (B,)."""

    def make(process, items, num_steps: int, seed: int = 0, **settings) -> SimpleNamespace:
        items = np.arange(items) if isinstance(items, int) else np.asarray(items)
        draws, chosen = Draws(seed, process.name, items), process.settings(**settings)
        return SimpleNamespace(
            series=process.generate(draws, num_steps, chosen), kinds=np.asarray(process.kinds(draws, chosen))
        )

    return make


@pytest.fixture
def autocorrelation():
    """autocorrelation(series (B, T), lag: one or one a series) -> (B,), each series about its own mean."""

    def measure(series: np.ndarray, lag: int | np.ndarray) -> np.ndarray:
        centred = series - series.mean(axis=1, keepdims=True)
        lags = np.broadcast_to(lag, len(series))
        return np.array(
            [(row[lag:] * row[: len(row) - lag]).sum() / (row**2).sum() for row, lag in zip(centred, lags, strict=True)]
        )

    return measure
