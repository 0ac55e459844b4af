"""Windows: rows cut out of series, the one form in which data reaches a model family.

Axes: R rows (one row = one variate of one sample), C context steps, H horizon steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """What a row is to the model."""

    TARGET = 0
    """To be forecast."""
    PAST = 1
    """A covariate known up to the cut only."""
    FUTURE = 2
    """A covariate known over the horizon too."""


@dataclass(frozen=True)
class Windows:
    """The rows of one micro-batch. NaN is missing; padding is missing too."""

    context_RC: np.ndarray
    """float32, the values before the cut, left-padded with NaN to the longest context of the micro-batch."""
    future_RH: np.ndarray
    """float32, the values from the cut on, whatever the role: each family masks what it must not see."""
    role_R: np.ndarray
    """int8, a `Role` a row."""
    group_R: np.ndarray
    """int64, rows of one sample share an id; ids are unique within the micro-batch."""
    sample_R: np.ndarray
    """int64, the sample's index in the stream (-1 where the rows do not come from a stream)."""
    source_R: np.ndarray
    """int32, index of the source in the mixture."""
    item_R: np.ndarray
    """int64, row of the series in its source."""

    @property
    def num_rows(self) -> int:
        return len(self.role_R)


@dataclass(frozen=True)
class ForecastInput:
    """One thing to forecast: all rows of one group. Row order: targets, past covariates, known-future covariates."""

    context_RC: np.ndarray
    """float32 (rows, L)."""
    future_RH: np.ndarray
    """float32 (rows, H): NaN for targets and past covariates, the known values for future covariates."""
    num_targets: int
    num_past: int = 0
    num_future: int = 0
