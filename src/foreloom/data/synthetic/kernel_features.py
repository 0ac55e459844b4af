"""Kernels as features: rows of functions with k(x, x') = sum of f(x) f(x'), few rows for kernels that are smooth.

Exact up to `TOLERANCE` of the largest variance, far below what float32 keeps of a value.

Axes: T points x of [0, 1], F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

TOLERANCE = 1e-10
"""Most by which an entry of a covariance may be wrong, relative to the largest variance."""
_LEFT_OUT = TOLERANCE / 20
"""What one step here may leave out, so that a product of several stays within `TOLERANCE`."""
_GRID = 64
"""Points of a period: its harmonics from 32 on are below 1e-20."""


def points(num_steps: int) -> np.ndarray:
    """float64 (T,), where the processes are looked at."""
    return np.linspace(0.0, 1.0, num_steps)


@lru_cache(maxsize=128)
def periodic(num_steps: int, period: float, power: int) -> np.ndarray:
    """float64 (F, T) of exp(-2 power sin(pi d / p)**2), d = x - x': the periodic kernel of length scale 1, to a power.

    That is exp(power (cos(2 pi d / p) - 1)), whose Fourier series falls off faster than any geometric one; a harmonic
    is a cosine and a sine. `period` counts in 1 / num_steps, as the original has it, though points lie
    1 / (num_steps - 1) apart.
    """
    angle = 2 * np.pi * np.arange(_GRID) / _GRID
    weight_H = np.fft.rfft(np.exp(power * (np.cos(angle) - 1))).real / _GRID
    weight_H[1:] *= 2
    num_harmonics = int(np.argmax(np.cumsum(weight_H[::-1])[::-1] < _LEFT_OUT))
    scale_H = np.sqrt(weight_H[:num_harmonics, None])
    phase_HT = 2 * np.pi * num_steps / period * np.arange(num_harmonics)[:, None] * points(num_steps)
    return _kept(np.concatenate([scale_H * np.cos(phase_HT), scale_H[1:] * np.sin(phase_HT[1:])]))


@lru_cache(maxsize=128)
def smooth(num_steps: int, correlation: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """float64 (F, T) of k(x, x') = correlation(x - x'), by a Cholesky factorisation that takes the largest pivot and
    ends when nothing is left (Harbrecht, Peters and Schneider 2012).

    What is left is a covariance too, so none of its entries exceeds its largest variance.
    """
    x_T = points(num_steps)
    features_FT = np.empty((0, num_steps))
    left_T = correlation(np.zeros(num_steps))
    while left_T.max() > _LEFT_OUT:
        pivot = int(np.argmax(left_T))
        covariance_T = correlation(x_T - x_T[pivot]) - np.einsum("f,ft->t", features_FT[:, pivot], features_FT)
        new_T = covariance_T / np.sqrt(left_T[pivot])
        features_FT = np.vstack([features_FT, new_T])
        left_T = left_T - new_T**2
    return _kept(features_FT)


def polynomial(num_steps: int, variances: Sequence[float]) -> np.ndarray:
    """float64 (F, T) of the product of (v + x x') over `variances`: powers of x, at most one more than factors."""
    coefficients = np.array([1.0])
    for variance in variances:
        coefficients = np.convolve(coefficients, [variance, 1.0])
    power_F = np.flatnonzero(coefficients)
    return np.sqrt(coefficients[power_F, None]) * points(num_steps) ** power_F[:, None]


def product(one_FT: np.ndarray, other_FT: np.ndarray) -> np.ndarray:
    """float64 (F, T): features of the product of two kernels, products of theirs.

    Those are left out that together cannot change a covariance by more than the tolerance, since a feature adds no
    more to any entry than its own largest square.
    """
    size_F = np.multiply.outer((one_FT**2).max(axis=1), (other_FT**2).max(axis=1)).ravel()
    ascending_F = np.argsort(size_F)
    kept_F = np.sort(ascending_F[np.cumsum(size_F[ascending_F]) > _LEFT_OUT * size_F.sum()])
    first_F, second_F = np.divmod(kept_F, len(other_FT))
    return one_FT[first_F] * other_FT[second_F]


def _kept(features_FT: np.ndarray) -> np.ndarray:
    """Callers share what is cached."""
    features_FT.setflags(write=False)
    return features_FT
