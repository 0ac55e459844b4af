"""Samples looked at: their windows as they lie in the data, with what is suspicious about each.

Axes: R rows of one series (variates and covariates), T steps of one window (context and horizon).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreloom.data.config import DataConfig
from foreloom.data.source import Source
from foreloom.data.stream.draw import Samples


@dataclass(frozen=True)
class WindowFacts:
    """One series of one sample, in the data's own units. NaN where nothing is observed."""

    sample: int
    """Index in the stream."""
    source: str
    item: int
    """Row in its source."""
    series: str
    """Its id."""
    cut: int
    """Step at which the horizon begins."""
    num_steps: int
    """Steps of the context that are there."""
    least: float
    greatest: float
    missing_share: float
    """Of context and horizon; infinite values count as missing."""
    num_infinite: int
    largest_jump: float
    """Largest change from one step to the next, over the mean change of its row."""


@dataclass(frozen=True)
class ReplayedWindow:
    """A window with its facts."""

    facts: WindowFacts
    values_RT: np.ndarray
    """float64, context then horizon, not normalised; covariates below the targets."""
    num_targets: int


def replay(samples: Samples, sources: Sequence[Source], config: DataConfig) -> list[ReplayedWindow]:
    """A window for each series of each sample, in stream order."""
    return [
        _window(samples.first + n, sources[samples.source_N[n]], int(samples.item_M[m]), int(samples.cut_M[m]), config)
        for n in range(len(samples))
        for m in range(samples.offsets_N[n], samples.offsets_N[n + 1])
    ]


def by_suspicion(windows: Sequence[ReplayedWindow]) -> list[ReplayedWindow]:
    """The most suspicious first: infinite values, then the largest jumps."""
    return sorted(windows, key=lambda window: (-window.facts.num_infinite, -window.facts.largest_jump))


def _window(sample: int, source: Source, item: int, cut: int, config: DataConfig) -> ReplayedWindow:
    num_steps = min(cut, config.context_length)
    values_RT = np.full((int(source.num_rows[item]), num_steps + config.prediction_length), np.nan)
    counts = source.fill_window(item, cut, values_RT[:, :num_steps], values_RT[:, num_steps:])
    observed_RT = np.isfinite(values_RT)
    observed = values_RT[observed_RT]
    facts = WindowFacts(
        sample=sample,
        source=source.name,
        item=item,
        series=source.read(item).item_id,
        cut=cut,
        num_steps=num_steps,
        least=float(observed.min()) if len(observed) else np.nan,
        greatest=float(observed.max()) if len(observed) else np.nan,
        missing_share=float(1 - observed_RT.mean()),
        num_infinite=int(np.isinf(values_RT).sum()),
        largest_jump=_largest_jump(np.where(observed_RT, values_RT, np.nan)),
    )
    return ReplayedWindow(facts, values_RT, counts.num_targets)


def _largest_jump(values_RT: np.ndarray) -> float:
    """0 where no row has two observed steps side by side, or none of them moves."""
    change_RT = np.abs(np.diff(values_RT, axis=1))
    ratios = [row.max() / row.mean() for row in (x[np.isfinite(x)] for x in change_RT) if len(row) and row.any()]
    return float(max(ratios, default=0.0))
