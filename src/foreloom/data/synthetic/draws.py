"""Random numbers for whole batches of synthetic series: each a pure function of (seed, process, series, use, place).

Axes: B series, K numbers of one use a series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foreloom.data import hashing

_MOST_PLACES = 2**24
"""Numbers that one use may draw for one series."""


@dataclass(frozen=True)
class Draws:
    """What the series `item_B` of one process draw. A use ("slope", "noise") is drawn once: its numbers are the same
    each time, whichever series stand beside in the batch."""

    seed: int
    process: str
    """Name of the process: two processes of one seed draw different numbers."""
    item_B: np.ndarray
    """int64, numbers of the series."""

    def uniform(self, use: str, *places: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """float64 (B, *places) in [low, high)."""
        return low + (high - low) * hashing.uniform(self.seed, self.process, use, self._index(places))

    def log_uniform(self, use: str, *places: int, low: float, high: float) -> np.ndarray:
        """float64 (B, *places) in [low, high), uniform in the logarithm: as many in 1..10 as in 10..100."""
        return np.exp(self.uniform(use, *places, low=np.log(low), high=np.log(high)))

    def normal(self, use: str, *places: int) -> np.ndarray:
        """float64 (B, *places) of mean 0 and deviation 1 (Box and Muller 1958)."""
        index = self._index(places)
        radius = hashing.uniform(self.seed, self.process, f"{use}/radius", index)
        angle = hashing.uniform(self.seed, self.process, f"{use}/angle", index)
        return np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)

    def integers(self, use: str, *places: int, low: int = 0, high: int) -> np.ndarray:
        """int64 (B, *places) in [low, high)."""
        return low + hashing.integers(self.seed, self.process, use, self._index(places), high - low)

    def happens(self, use: str, *places: int, probability: float | np.ndarray) -> np.ndarray:
        """bool (B, *places): True with that probability, one for all or an array that broadcasts."""
        return self.uniform(use, *places) < probability

    def pick(self, use: str, options: Sequence) -> np.ndarray:
        """(B,), one of the options a series, each as likely."""
        return np.asarray(options)[self.integers(use, high=len(options))]

    def rows(self, chosen_B: np.ndarray) -> Draws:
        """The draws of some of the series alone: a bool a series, or their places in the batch."""
        return replace(self, item_B=self.item_B[chosen_B])

    def _index(self, places: tuple[int, ...]) -> np.ndarray:
        num_places = int(np.prod(places, dtype=np.int64))
        assert num_places <= _MOST_PLACES
        place = np.arange(num_places, dtype=np.int64).reshape(places)
        return self.item_B.reshape(-1, *[1] * len(places)) * _MOST_PLACES + place
