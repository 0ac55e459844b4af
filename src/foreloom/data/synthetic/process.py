"""The contract of a synthetic process: one record that says what its series are and how a batch of them is made.

Axes: B series, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from foreloom.data.synthetic.draws import Draws


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
class Process:
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

    def open(self, settings: Any, seed: int, shortest: int, longest: int) -> Maker:
        """Ready to make series of `shortest` to `longest` steps."""
        return _Generated(self, settings, seed, shortest, longest)


def drawn_lengths(draws: Draws, shortest: int, longest: int) -> np.ndarray:
    """int64 (B,), uniform from `shortest` to `longest`."""
    return draws.integers("length", low=shortest, high=longest + 1)


@dataclass(frozen=True)
class _Generated:
    """A series is the beginning of one of the longest length."""

    process: Process
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
