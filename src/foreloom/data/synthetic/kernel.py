"""KernelSynth: draws from Gaussian processes whose kernels are put together at random.

Ansari et al. 2024 (Chronos), algorithm 2, in the numbers of their script: one to five kernels of a bank of 33, drawn
with replacement, combined from left to right by sums and products; one draw of the prior at T points of [0, 1].

The original factors the T x T covariance of each series. Here it is expanded into a sum of products: independent draws
of the products add up to a draw of their sum. A product with white noise in it is noise. All other kernels have few
features, few where they are smooth, exact up to `TOLERANCE` of the largest variance; those of a product are products of
its factors' features, and a draw is features times normal numbers. Only a product of so many different kernels that its
features outnumber that work is factored as in the original.

Axes: B series, K places for kernels, T steps, F features.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from foreloom.config.section import section
from foreloom.data.synthetic.process import Draws, StochasticProcess

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


class Kernel(NamedTuple):
    """One kernel of the bank, k(x, x') of two points of [0, 1]."""

    form: str
    """periodic, linear, rbf, rational, white or constant, with the formulas of scikit-learn."""
    parameter: float = 0.0
    """Period in steps, sigma_0, length scale, alpha, or variance."""


Term = tuple[Kernel, ...]
"""A product of kernels."""

PERIODS = (24, 48, 96, 168, 336, 672, 7, 14, 30, 60, 365, 730, 4, 26, 52, 4, 6, 12, 4, 40, 10)
"""Of hours and their halves and quarters, days, weeks, months, quarters, years: 4 steps stand for three of these."""
BANK = (
    *(Kernel("periodic", period) for period in PERIODS),
    *(Kernel("linear", sigma) for sigma in (0.0, 1.0, 10.0)),
    *(Kernel("rbf", scale) for scale in (0.1, 1.0, 10.0)),
    *(Kernel("rational", alpha) for alpha in (0.1, 1.0, 10.0)),
    *(Kernel("white", variance) for variance in (0.1, 1.0)),
    Kernel("constant"),
)
_IN_ONE_THREAD = 2**18
"""Multiplications up to which OpenBLAS starts no threads. Theirs would wait for one another on a busy machine, hundreds
of times longer than such a product takes, and would round differently from one number of threads to another."""
_KINDS = {"periodic": "periodic", "linear": "linear", "rbf": "smooth", "rational": "smooth", "white": "noise"}


@section
class KernelConfig:
    """Settings of KernelSynth."""

    max_kernels: Annotated[int, Field(ge=1, le=16)] = 5
    """Most kernels of a series; their number is uniform from 1 on."""


class Composition(NamedTuple):
    """Kernels in the order in which they are combined, from left to right."""

    kernels: list[Kernel]
    times: list[bool]
    """Of each but the first: does it multiply what stands before it? Else it is added."""

    def terms(self) -> list[Term]:
        """The products whose sum it is."""
        terms: list[Term] = [(self.kernels[0],)]
        for kernel, multiplies in zip(self.kernels[1:], self.times, strict=True):
            terms = [(*term, kernel) for term in terms] if multiplies else [*terms, (kernel,)]
        return terms


def compositions(draws: Draws, max_kernels: int) -> list[Composition]:
    """The kernel of each series."""
    count_B = draws.integers("count", low=1, high=max_kernels + 1)
    kernel_BK = draws.integers("kernel", max_kernels, high=len(BANK))
    times_BK = draws.happens("times", max_kernels, probability=0.5)
    return [
        Composition([BANK[number] for number in kernel_K[:count]], times_K[1:count].tolist())
        for count, kernel_K, times_K in zip(count_B, kernel_BK, times_BK, strict=True)
    ]


def noise_variance(term: Term, num_steps: int) -> np.ndarray | None:
    """float64 (T,): the variance of a product that is noise, independent from step to step; None where it is not."""
    if all(kernel.form != "white" for kernel in term):
        return None
    variance_T = np.ones(num_steps)
    for kernel in term:
        if kernel.form == "white":
            variance_T *= kernel.parameter
        elif kernel.form == "linear":
            variance_T *= kernel.parameter**2 + points(num_steps) ** 2
    return variance_T


def factor_features(term: Term, num_steps: int) -> list[np.ndarray]:
    """Features, float64 (F, T) each, of kernels whose product is the term's: equal and related ones taken together."""
    periods = Counter(kernel.parameter for kernel in term if kernel.form == "periodic")
    factors = [periodic(num_steps, period, power) for period, power in periods.items()]
    if related := tuple(sorted(kernel for kernel in term if kernel.form in ("rbf", "rational"))):
        factors.append(smooth(num_steps, _correlation(related)))
    sigmas = [kernel.parameter for kernel in term if kernel.form == "linear"]
    if sigmas or not factors:
        factors.append(polynomial(num_steps, [sigma**2 for sigma in sigmas]))
    return sorted(factors, key=len, reverse=True)


def draw_term(one: Draws, use: str, term: Term, num_steps: int) -> np.ndarray:
    """float64 (T,): a draw of the Gaussian process of one term, for the one series of `one`."""
    variance_T = noise_variance(term, num_steps)
    if variance_T is not None:
        return np.sqrt(variance_T) * one.normal(use, num_steps)[0]
    factors = factor_features(term, num_steps)
    if math.prod(map(len, factors)) > num_steps**2:
        return _factored(factors, one.normal(use, num_steps)[0])
    left_FT, right_FT = (functools.reduce(product, half) for half in (factors[::2], factors[1::2] or [np.ones((1, 1))]))
    return _summed(one.normal(use, len(right_FT), len(left_FT))[0], left_FT, right_FT)


def _summed(normal_FF: np.ndarray, left_FT: np.ndarray, right_FT: np.ndarray) -> np.ndarray:
    """float64 (T,): all products of a right and a left feature, times their numbers, which are never built."""
    values_T = np.empty(left_FT.shape[1])
    block = max(_IN_ONE_THREAD // normal_FF.size, 1)
    for first in range(0, len(values_T), block):
        steps = slice(first, first + block)
        values_T[steps] = ((normal_FF @ left_FT[:, steps]) * right_FT[:, steps]).sum(axis=0)
    return values_T


def _factored(factors: Sequence[np.ndarray], normal_T: np.ndarray) -> np.ndarray:
    """float64 (T,): a draw by Cholesky's factors of the covariance."""
    covariance_TT = functools.reduce(np.multiply, [features_FT.T @ features_FT for features_FT in factors])
    # Rounding may leave it a little less than positive; x x' alone is 0 at the one point of a series of one step.
    variance_T = covariance_TT.diagonal()
    np.fill_diagonal(covariance_TT, variance_T + TOLERANCE * variance_T.max() + np.finfo(np.float64).tiny)
    return np.linalg.cholesky(covariance_TT) @ normal_T


@functools.lru_cache(maxsize=128)
def _correlation(kernels: Term) -> Callable[[np.ndarray], np.ndarray]:
    """The product of stationary kernels as one function of x - x'; the same object for the same kernels."""

    def of(difference: np.ndarray) -> np.ndarray:
        result = np.ones_like(difference)
        for form, parameter in kernels:
            if form == "rbf":
                result *= np.exp(-((difference / parameter) ** 2) / 2)
            else:
                result *= (1 + difference**2 / (2 * parameter)) ** -parameter
        return result

    return of


def _generate(draws: Draws, num_steps: int, settings: KernelConfig) -> np.ndarray:
    values_BT = np.zeros((len(draws.item_B), num_steps))
    for b, composition in enumerate(compositions(draws, settings.max_kernels)):
        one = Draws(draws.seed, draws.process, draws.item_B[b : b + 1])
        for number, term in enumerate(composition.terms()):
            values_BT[b] += draw_term(one, f"term {number}", term, num_steps)
    return values_BT


def _kinds(draws: Draws, settings: KernelConfig) -> list[str]:
    found = [
        {_KINDS[kernel.form] for kernel in composition.kernels if kernel.form in _KINDS}
        for composition in compositions(draws, settings.max_kernels)
    ]
    return ["+".join(sorted(kinds)) or "constant" for kinds in found]


PROCESS = StochasticProcess(
    name="kernel",
    sentence="KernelSynth of Chronos: Gaussian processes of one to five random kernels, added and multiplied.",
    settings=KernelConfig,
    generate=_generate,
    kinds=_kinds,
)
