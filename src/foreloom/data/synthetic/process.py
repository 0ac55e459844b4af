"""What a synthetic process is: a record that says what its series are and how a batch of them is made; and what its
series draw: each number a pure function of (seed, process, series, use, place).

Axes: B series, T steps, K numbers of one use a series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from pydantic import BeforeValidator, Field

from foreloom.data import hashing
from foreloom.data.source import Source

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


OpenSource = Callable[[str], Source]
"""Opens a data set by its path or address, see `formats.reader`."""


def _one_kind(draws: Draws, settings: Any) -> Sequence[str]:
    """For processes whose series are all of one kind."""
    return [draws.process] * len(draws.item_B)


class Maker(Protocol):
    """A process with its settings, a seed and lengths: makes the series that it is asked for by number."""

    def fingerprint(self) -> str:
        """Of the settings and of the data that series are made of, wherever these lie."""
        ...

    def lengths(self, num_series: int) -> np.ndarray:
        """int64 (num_series,), steps of each series; takes no memory where all are equal."""
        ...

    def make(self, item_B: np.ndarray, length_B: np.ndarray) -> list[np.ndarray]:
        """The series, float64 (T,) each, NaN is missing. `length_B`: their lengths, as given by `lengths`."""
        ...

    def kinds(self, item_B: np.ndarray) -> Sequence[str]:
        """A word a series for what it is."""
        ...


@dataclass(frozen=True)
class StochasticProcess:
    """A generator of series. Series i of a seed is always the same, whichever others are made with it."""

    name: str
    """As in `synth://name` and `foreloom data synth name`."""
    sentence: str
    """What its series look like and what a model learns from them."""
    settings: type
    """A `config.section` with what may be chosen beside seed, number and length; every field has a default."""
    generate: Callable[[Draws, int, Any], np.ndarray]
    """generate(draws, num_steps, settings) -> float64 (B, T), finite. Vectorised over series."""
    kinds: Callable[[Draws, Any], Sequence[str]] = _one_kind
    """kinds(draws, settings) -> a word a series for what it is (trend, seasonal ...), kept as its static `kind`."""
    length: str = "1024"
    """Steps of a series where the user says nothing: a number, or a range such as 128..2048."""

    def open(self, settings: Any, seed: int, shortest: int, longest: int, open_source: OpenSource) -> Maker:
        """Ready to make series of `shortest` to `longest` steps. `open_source` is for those made of other series."""
        return _Generated(self, settings, seed, shortest, longest)


def drawn_lengths(draws: Draws, shortest: int, longest: int) -> np.ndarray:
    """int64 (B,), uniform from `shortest` to `longest`."""
    return draws.integers("length", low=shortest, high=longest + 1)


@dataclass(frozen=True)
class _Generated:
    """A series is the beginning of one of the longest length."""

    process: StochasticProcess
    settings: Any
    seed: int
    shortest: int
    longest: int

    def fingerprint(self) -> str:
        return repr(self.settings)

    def lengths(self, num_series: int) -> np.ndarray:
        if self.shortest == self.longest:
            return np.broadcast_to(np.int64(self.longest), num_series)
        return drawn_lengths(self._draws(np.arange(num_series)), self.shortest, self.longest)

    def make(self, item_B: np.ndarray, length_B: np.ndarray) -> list[np.ndarray]:
        values_BT = self.process.generate(self._draws(item_B), self.longest, self.settings)
        return [values_T[:length] for values_T, length in zip(values_BT, length_B, strict=True)]

    def kinds(self, item_B: np.ndarray) -> Sequence[str]:
        return self.process.kinds(self._draws(item_B), self.settings)

    def _draws(self, item_B: np.ndarray) -> Draws:
        return Draws(self.seed, self.process.name, item_B)


T = TypeVar("T")


def _listed(value: Any) -> Any:
    """In an address (`synth://chaos?systems=lorenz,henon`) a list is words between commas."""
    return value.split(",") if isinstance(value, str) else value


Several = Annotated[tuple[T, ...], Field(min_length=1), BeforeValidator(_listed)]
"""At least one of something."""

Periods = Several[Annotated[int, Field(ge=2, le=2048)]]
"""Lengths of a season in steps, at least one."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""0 is none of the series, 1 all of them."""

Noise = Annotated[float, Field(ge=0.0, le=10.0)]
"""The most noise of a series, its unit said beside it. 0 is none."""

COMMON_PERIODS = (4, 7, 12, 24, 48, 52, 60, 96, 144, 168, 288, 336, 365)
"""Quarters and months of a year, days of a week, weeks and days of a year, minutes of an hour; hours, half hours,
quarters, ten and five minutes of a day; hours and half hours of a week."""


def refuse_idle_periods(periods: tuple[int, ...], default: tuple[int, ...], seasonal: float) -> None:
    """Raises ValueError where periods are chosen for series that have no season."""
    if seasonal == 0 and periods != default:
        raise ValueError("periods has no effect with seasonal: 0; remove it, or raise seasonal")
