"""The contract of a synthetic process: one record that says what its series are and how a batch of them is made.

Axes: B series, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreloom.data.synthetic.draws import Draws


def _one_kind(draws: Draws, settings: Any) -> Sequence[str]:
    """For processes whose series are all of one kind."""
    return [draws.process] * len(draws.item_B)


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
