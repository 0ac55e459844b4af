"""The unit a series is measured in: its scale, and how far from zero it lies.

Axes: B series, T steps.
"""

from __future__ import annotations

import numpy as np

from foreloom.data.synthetic.draws import Draws

_CENTRED = 0.25
"""Share of series about zero, as anomalies, differences and returns are."""
_NEGATIVE = 0.1
"""Share of those far from zero that lie below it."""


def scaled(draws: Draws, x_BT: np.ndarray) -> np.ndarray:
    """(B, T): each series times a number of its own in 0.01 .. 10,000. Zeros and signs stay."""
    return x_BT * draws.log_uniform("unit/scale", 1, low=1e-2, high=1e4)


def shifted_and_scaled(draws: Draws, x_BT: np.ndarray) -> np.ndarray:
    """(B, T): series that vary by about 1 about 0, most of them moved 1 .. 50 away from it, then scaled."""
    level_B1 = draws.log_uniform("unit/level", 1, low=1.0, high=50.0)
    level_B1 *= np.where(draws.happens("unit/negative", 1, probability=_NEGATIVE), -1.0, 1.0)
    level_B1[draws.happens("unit/centred", 1, probability=_CENTRED)] = 0.0
    return scaled(draws, x_BT + level_B1)
