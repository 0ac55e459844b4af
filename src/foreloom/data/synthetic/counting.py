"""Counts of given rates: Poisson and negative binomial numbers made of uniform and normal ones.

Axes: B series, T steps, N numbers left to place.
"""

from __future__ import annotations

import numpy as np

from foreloom.data.synthetic.draws import Draws

_LARGE = 30.0
"""Rates from which a Poisson number is taken for a rounded normal one: its skew is under 0.2 there."""


def poisson(draws: Draws, use: str, rate_BT: np.ndarray) -> np.ndarray:
    """float64 (B, T), whole numbers: Poisson of those rates, by inversion where they are small."""
    num_steps = rate_BT.shape[1]
    count_BT = np.rint(rate_BT + np.sqrt(rate_BT) * draws.normal(f"{use}/large", num_steps))
    small_BT = rate_BT < _LARGE
    count_BT[small_BT] = _inverted(draws.uniform(f"{use}/small", num_steps)[small_BT], rate_BT[small_BT])
    return np.maximum(count_BT, 0.0)


def negative_binomial(draws: Draws, use: str, mean_BT: np.ndarray, shape_B: np.ndarray) -> np.ndarray:
    """float64 (B, T), whole numbers of mean `mean` and variance `mean + mean**2 / shape`: Poisson of rates that are
    gamma distributed. The gamma numbers are cubes of normal ones (Wilson and Hilferty 1931), close from shape 0.5 on.
    """
    ninth_B1 = 1 / (9 * shape_B[:, None])
    normal_BT = draws.normal(f"{use}/rate", mean_BT.shape[1])
    gamma_BT = np.maximum(1 - ninth_B1 + normal_BT * np.sqrt(ninth_B1), 0.0) ** 3
    return poisson(draws, use, mean_BT * gamma_BT)


def _inverted(uniform_N: np.ndarray, rate_N: np.ndarray) -> np.ndarray:
    """The least count whose cumulated probability exceeds the uniform number."""
    count_N = np.zeros(len(rate_N))
    left = np.arange(len(rate_N))
    term_N = np.exp(-rate_N)
    below_N = term_N.copy()
    for count in range(1, int(8 * _LARGE)):
        beyond = uniform_N >= below_N
        left, uniform_N, rate_N = left[beyond], uniform_N[beyond], rate_N[beyond]
        if not len(left):
            break
        count_N[left] = count
        term_N = term_N[beyond] * rate_N / count
        below_N = below_N[beyond] + term_N
    return count_N
