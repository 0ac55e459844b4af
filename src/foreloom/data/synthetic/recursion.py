"""First-order linear recursions of many series at once.

Axes: B series, T steps.
"""

from __future__ import annotations

import numpy as np


def decayed_sums(x_BT: np.ndarray, keep_B: np.ndarray) -> np.ndarray:
    """float64 (B, T): y[t] = keep * y[t-1] + x[t], from y = 0 before the first step; `keep_B` lies in [0, 1]."""
    y_TB = np.array(x_BT.T, order="C")
    for step in range(1, len(y_TB)):
        y_TB[step] += keep_B * y_TB[step - 1]
    return y_TB.T


def autoregression(shock_BT: np.ndarray, keep_B: np.ndarray) -> np.ndarray:
    """float64 (B, T): the stationary AR(1) of variance 1 that shocks of variance 1 drive, in its stationary law from
    the first step on. `keep_B` is its correlation one step apart, in [0, 1)."""
    scaled_BT = shock_BT * np.sqrt(1 - keep_B[:, None] ** 2)
    scaled_BT[:, 0] = shock_BT[:, 0]
    return decayed_sums(scaled_BT, keep_B)
