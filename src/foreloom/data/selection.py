"""Which series of a source a run may draw: those long enough, cut down to `max_series` by a fixed choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foreloom.data.hashing import random_bits
from foreloom.data.series import Source

_NONE = np.array([], dtype=np.int64)


@dataclass(frozen=True)
class Selection:
    """The usable series of one source."""

    items: np.ndarray
    """int64, sorted rows of the source."""
    num_short: int
    """Series left out because they are too short for one window."""
    lengths: np.ndarray
    """int64, steps that may be drawn from each series of the source, its holdout taken off."""


def select(
    source: Source,
    min_length: int,
    max_series: int | None = None,
    holdout: int = 0,
    quarantined: np.ndarray = _NONE,
) -> Selection:
    """Take `holdout` steps off every end, leave out series under `min_length` steps, keep `max_series` of the rest.

    The rows in `quarantined` are left out too. The choice does not depend on the run's seed. Raises ValueError, with
    the lengths found, where nothing is left.
    """
    lengths = np.maximum(source.lengths - holdout, 0)
    items = np.flatnonzero(lengths >= min_length)
    num_short = len(source) - len(items)
    if not len(items):
        raise ValueError(
            f"{source.name}: all {len(source)} series are shorter than {min_length + holdout} steps "
            f"(min_past + prediction_length{f' + holdout {holdout}' if holdout else ''}); their lengths are "
            f"{_describe(source.lengths)}. Lower data.prediction_length or data.min_past, or take the source out."
        )
    usable = np.setdiff1d(items, quarantined, assume_unique=True)
    if not len(usable):
        raise ValueError(f"{source.name}: data.quarantine lists every usable series; take the source out instead.")
    return Selection(fixed_choice(usable, max_series), num_short, lengths)


def fixed_choice(items: np.ndarray, max_series: int | None) -> np.ndarray:
    """`max_series` of the sorted `items`, or all: by a hash of the item's number, the same in every run."""
    if max_series is None or max_series >= len(items):
        return items
    bits = random_bits(0, "selection", "series", items)
    return np.sort(items[np.argpartition(bits, max_series - 1)[:max_series]])


def _describe(lengths: np.ndarray) -> str:
    longest = np.sort(lengths)[::-1]
    shown = ", ".join(str(length) for length in longest[:10])
    return shown if len(longest) <= 10 else f"{shown}, ... {longest[-1]} (longest first)"
