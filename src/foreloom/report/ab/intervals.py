"""Means of a few repeated measurements, paired differences of two, and how far chance may have moved them.

Intervals are Student's (1908): mean ± t(n - 1) * s / sqrt(n), s with n - 1 in the denominator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    half_width: float | None
    """Of the interval around it; None for a single value, whose spread nobody knows."""
    num_values: int

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def sign(self) -> int:
        """-1 or 1 where the whole interval lies below or above 0; 0 where it holds 0, or is not known."""
        if self.interval is None:
            return 0
        lower, upper = self.interval
        return -1 if upper < 0 else int(lower > 0)


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The mean of independent measurements, of which there must be one, with its interval."""
    num_values = len(values)
    mean = math.fsum(values) / num_values
    if num_values == 1:
        return Estimate(mean, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (num_values - 1))
    if deviation <= _ROUNDING * max(map(abs, values)):  # what does not depend on the seed, but for its last digits
        return Estimate(mean, 0.0, num_values)
    t = t_quantile(0.5 + confidence / 2, num_values - 1)
    return Estimate(mean, t * deviation / math.sqrt(num_values), num_values)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Of b - a, pair by pair: what a seed does to both (initial values, order of the data) does not widen it."""
    return estimate([second - first for first, second in zip(a, b, strict=True)])


def t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Where Student's t has this probability, at least 0.5, below it; by bisection."""
    assert 0.5 <= probability < 1 and degrees_of_freedom >= 1
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(degrees of freedom)
    for _ in range(100):
        middle = (low + high) / 2
        if 0.5 + _central_probability(middle, degrees_of_freedom) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(degrees_of_freedom)


def _central_probability(angle: float, degrees_of_freedom: int) -> float:
    """P(|T| <= tan(angle) * sqrt(degrees of freedom)), a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    cosine, is_odd = math.cos(angle), degrees_of_freedom % 2
    term, total = (cosine if is_odd else 1.0), 0.0
    for power in range(1 if is_odd else 0, degrees_of_freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    if is_odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
