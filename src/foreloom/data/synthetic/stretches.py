"""Stretches of random length between change points: in which one each step lies, and how long it has lasted.

Axes: B series, N stretches, T steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from foreloom.data.synthetic.draws import Draws


class Stretches(NamedTuple):
    """The stretches of a batch of series. What holds in a stretch is drawn N a series and read by `held`."""

    number_BT: np.ndarray
    """int64, the stretch of each step, from 0."""
    age_BT: np.ndarray
    """int64, steps since the stretch began; the first stretch begins at step 0."""
    most: int
    """N: no series has more stretches."""

    def held(self, value_BN: np.ndarray) -> np.ndarray:
        """(B, T): at each step the value of its stretch."""
        return np.take_along_axis(value_BN, self.number_BT, axis=1)


def stretches(draws: Draws, use: str, mean_BN: np.ndarray, shortest: int, num_steps: int) -> Stretches:
    """Stretches of at least `shortest` steps and `mean_BN` steps on average (one column for all stretches of a series,
    or one each; at least `shortest`), their lengths memoryless beyond the shortest. The first began before step 0."""
    num_ends = most_ends(shortest, num_steps)
    spare_BN = -np.log1p(-draws.uniform(f"{use}/length", num_ends)) * (mean_BN[:, :num_ends] - shortest)
    end_BN = np.cumsum(shortest + np.floor(spare_BN).astype(np.int64), axis=1)
    end_BN -= draws.integers(f"{use}/before", 1, high=shortest)
    return begun(end_BN, num_steps)


def begun(start_BN: np.ndarray, num_steps: int) -> Stretches:
    """The stretches that begin at those steps: whole numbers from 0, rising; stretch n + 1 begins at the n-th."""
    begins_BT = np.zeros((len(start_BN), num_steps + 1), dtype=bool)
    begins_BT[np.arange(len(start_BN))[:, None], np.minimum(start_BN, num_steps)] = True
    begins_BT = begins_BT[:, :num_steps]
    step_T = np.arange(num_steps)
    began_BT = np.maximum.accumulate(np.where(begins_BT, step_T, 0), axis=1)
    return Stretches(np.cumsum(begins_BT, axis=1), step_T - began_BT, start_BN.shape[1] + 1)


def most_ends(shortest: int, num_steps: int) -> int:
    """How many stretches of the shortest length can end within the steps, the first under way at their start."""
    return num_steps // shortest + 1
