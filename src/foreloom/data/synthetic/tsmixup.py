"""TSMixup: weighted sums of stretches of other series (Ansari et al. 2024 (Chronos), algorithm 1).

Axes: B series, K places for parts, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from foreloom.config.section import section
from foreloom.data.source import Prepares, Source
from foreloom.data.synthetic import registry
from foreloom.data.synthetic.process import Draws, OpenSource, drawn_lengths

_TRIES = 16
"""Of drawing a gamma number; each is accepted with a probability above 0.95."""
_SERIES_AT_ONCE = 2**16


@section
class MixupConfig:
    """Settings of TSMixup."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)] = ("kernel",)
    """What is mixed, separated by commas: paths of data sets, or names of synthetic processes."""
    max_series: Annotated[int, Field(ge=1, le=64)] = 3
    """Most parts of a mixture; their number is uniform from 1 on."""
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.5
    """Of the Dirichlet distribution of the weights: the larger, the more alike they are."""


class Parts(NamedTuple):
    """What B mixtures are made of; places from `count_B` on are empty."""

    count_B: np.ndarray
    """int64."""
    source_BK: np.ndarray
    """int64, index of the source: all equally likely."""
    item_BK: np.ndarray
    """int64, series of the source: all that are long enough equally likely."""
    length_BK: np.ndarray
    """int64, steps of that series."""


class Mixer:
    """Makes mixtures. A stretch is divided by the mean of its magnitudes, as in Chronos.

    A value that is missing in one part is missing in the mixture. Of a series with several targets one is taken;
    covariates are not.
    """

    def __init__(self, settings: MixupConfig, seed: int, shortest: int, longest: int, open_source: OpenSource):
        """Opens the sources. Raises ValueError where one has no series of `shortest` steps."""
        self._settings = settings
        self._seed = seed
        self._range = shortest, longest
        self._sources = [_open(one, seed, longest, open_source) for one in settings.sources]
        self._long_enough = [np.flatnonzero(source.lengths >= shortest) for source in self._sources]
        for source, items in zip(self._sources, self._long_enough, strict=True):
            if not len(items):
                raise ValueError(
                    f"{source.name}: no series has the {shortest:,} steps that the shortest mixture needs; the longest "
                    f"has {source.lengths.max():,}. Lower length, or take the source out."
                )

    def fingerprint(self) -> str:
        settings = self._settings
        return f"{settings.max_series}|{settings.alpha}|{[source.fingerprint for source in self._sources]}"

    def lengths(self, num_series: int) -> np.ndarray:
        """Uniform in the range, but never more than the shortest part has."""
        shortest, longest = self._range
        if shortest == longest:
            return np.broadcast_to(np.int64(longest), num_series)
        lengths = np.empty(num_series, dtype=np.int64)
        for first in range(0, num_series, _SERIES_AT_ONCE):
            draws = self._draws(np.arange(first, min(first + _SERIES_AT_ONCE, num_series)))
            parts = self.parts(draws)
            absent_BK = np.arange(self._settings.max_series) >= parts.count_B[:, None]
            least_B = np.where(absent_BK, longest, parts.length_BK).min(axis=1)
            lengths[draws.item_B] = np.minimum(drawn_lengths(draws, shortest, longest), least_B)
        return lengths

    def make(self, item_B: np.ndarray, length_B: np.ndarray) -> list[np.ndarray]:
        draws = self._draws(item_B)
        parts = self.parts(draws)
        num_places = self._settings.max_series
        absent_BK = np.arange(num_places) >= parts.count_B[:, None]
        weight_BK = np.where(absent_BK, 0.0, gamma(draws, "weight", num_places, shape=self._settings.alpha))
        weight_BK /= weight_BK.sum(axis=1, keepdims=True)
        place_BK, variate_BK = draws.uniform("place", num_places), draws.uniform("variate", num_places)
        mixed = [np.zeros(length) for length in length_B]
        for number, source in enumerate(self._sources):
            here = np.argwhere((parts.source_BK == number) & ~absent_BK)
            if isinstance(source, Prepares):
                source.prepare(parts.item_BK[tuple(here.T)])
            for b, k in here:
                item, length = int(parts.item_BK[b, k]), int(length_B[b])
                start = int(place_BK[b, k] * (parts.length_BK[b, k] - length + 1))
                rows_RT = np.full((int(source.num_rows[item]), length), np.nan)
                source.fill_window(item, start + length, rows_RT, rows_RT[:, :0])
                mixed[b] += weight_BK[b, k] * _scaled(rows_RT[int(variate_BK[b, k] * source.num_targets[item])])
        return mixed

    def kinds(self, item_B: np.ndarray) -> list[str]:
        return [f"{count} part{'s' if count > 1 else ''}" for count in self.parts(self._draws(item_B)).count_B]

    def parts(self, draws: Draws) -> Parts:
        """What the mixtures are made of."""
        num_places = self._settings.max_series
        source_BK = draws.integers("source", num_places, high=len(self._sources))
        series_BK = draws.uniform("series", num_places)
        item_BK, length_BK = np.empty_like(source_BK), np.empty_like(source_BK)
        for number, (source, items) in enumerate(zip(self._sources, self._long_enough, strict=True)):
            here = source_BK == number
            item_BK[here] = items[(series_BK[here] * len(items)).astype(np.int64)]
            length_BK[here] = source.lengths[item_BK[here]]
        return Parts(draws.integers("count", low=1, high=num_places + 1), source_BK, item_BK, length_BK)

    def _draws(self, item_B: np.ndarray) -> Draws:
        return Draws(self._seed, PROCESS.name, item_B)


def gamma(draws: Draws, use: str, *places: int, shape: float) -> np.ndarray:
    """float64 (B, *places), gamma distributed of scale 1 (Marsaglia and Tsang 2000); normalised they are Dirichlet."""
    d = shape - 1 / 3 if shape >= 1 else shape + 2 / 3
    x = draws.normal(f"{use}/normal", *places, _TRIES)
    v = np.maximum(1 + x / np.sqrt(9 * d), 1e-300) ** 3
    log_uniform = np.log1p(-draws.uniform(f"{use}/accept", *places, _TRIES))
    accepted = log_uniform < x**2 / 2 + d - d * v + d * np.log(np.maximum(v, 1e-300))
    found = d * np.take_along_axis(v, accepted.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    if shape < 1:
        found *= (1 - draws.uniform(f"{use}/small", *places)) ** (1 / shape)
    return found


def _scaled(values_T: np.ndarray) -> np.ndarray:
    observed = np.abs(values_T[np.isfinite(values_T)])
    mean = observed.mean() if len(observed) else 0.0
    return values_T / mean if mean > 0 else values_T


def _open(path: str, seed: int, longest: int, open_source: OpenSource) -> Source:
    """A process gives series of its usual length, or as long as the longest mixture."""
    if path not in registry.names():
        return open_source(path)
    usual = int(registry.get(path).length.rpartition("..")[2])
    return open_source(f"synth://{path}?length={max(usual, longest)}&seed={seed}")


@dataclass(frozen=True)
class _Mixup:
    """TSMixup as a process: it needs other series, so it makes its own at the length that each has."""

    name: str = "tsmixup"
    sentence: str = "TSMixup of Chronos: weighted sums of one to three scaled stretches of other series."
    settings: type = MixupConfig
    length: str = "128..2048"

    def open(self, settings: MixupConfig, seed: int, shortest: int, longest: int, open_source: OpenSource) -> Mixer:
        return Mixer(settings, seed, shortest, longest, open_source)


PROCESS = _Mixup()
