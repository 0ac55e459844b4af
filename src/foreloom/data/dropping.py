"""Values made missing at random while training, so that a model learns to forecast from what is there.

As Chronos-T5 trains: a sample draws a share, and loses each of its values with that probability.

Axes: R rows, T steps of context and horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foreloom.data.hashing import random_bits, uniform

_MOST_ROWS = 2**20
"""Of one sample."""


@dataclass(frozen=True)
class Dropping:
    """Which values are lost: a pure function of (seed, stream, sample, row of the sample, step from the cut)."""

    most: float
    """A sample's share is uniform from 0 to this."""
    seed: int
    stream: str

    def lost(self, sample_R: np.ndarray, place_R: np.ndarray, num_steps: int, num_ahead: int) -> np.ndarray:
        """bool (R, T): of `num_steps` values before the cut and `num_ahead` from it on, those that become missing.

        Rows are the `place_R`-th of the samples `sample_R`, int64 each. What a row loses does not depend on how wide a
        context it is given.
        """
        share_R = self.most * uniform(self.seed, self.stream, "drop share", sample_R)
        row_R = random_bits(self.seed, self.stream, "drop row", sample_R * _MOST_ROWS + place_R)
        step_T = np.arange(-num_steps, num_ahead).astype(np.uint64)
        return uniform(self.seed, self.stream, "drop step", row_R[:, None] + step_T) < share_R[:, None]
