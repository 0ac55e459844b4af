"""The contexts of what is to be forecast: how much of them is used, and the rows a univariate model makes of them.

Axes: L context steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from foreloom.data.forecast_input import ForecastInput


def usable_steps(inputs: Sequence[ForecastInput], asked: int | None, limit: int) -> int:
    """How many of the newest steps are used: those asked for, or as many as the model looks at (`limit`).

    ValueError for more than the limit, be it asked for, or there without a word of how much to use.
    """
    if asked is None:
        longest = max((x.context_RC.shape[1] for x in inputs), default=0)
        if longest > limit:
            raise ValueError(
                f"a context has {longest} steps and the model looks at {limit} at most; pass context_length={limit} "
                "to use the newest ones only."
            )
        return limit
    if not 1 <= asked <= limit:
        raise ValueError(f"context_length is {asked}; this model takes 1 to {limit}.")
    return asked


def target_rows(inputs: Sequence[ForecastInput], num_steps: int) -> tuple[list[np.ndarray], list[slice]]:
    """The newest steps of every target, one after another, from its first observed one on; and which are whose."""
    rows = [_observed(x_L[-num_steps:]) for x in inputs for x_L in x.context_RC[: x.num_targets]]
    ends = accumulate(x.num_targets for x in inputs)
    return rows, [slice(end - x.num_targets, end) for end, x in zip(ends, inputs, strict=True)]


def _observed(x_L: np.ndarray) -> np.ndarray:
    """From the first observed step on; a single missing one where nothing is observed. Infinite values are missing."""
    x_L = np.where(np.isfinite(x_L), x_L, np.float32("nan")).astype(np.float32)
    observed_L = ~np.isnan(x_L)
    return x_L[observed_L.argmax() :] if observed_L.any() else x_L[-1:]
