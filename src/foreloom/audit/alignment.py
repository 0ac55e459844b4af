"""The exact check: over which stretch is one series a copy of another, laid on each other at a given place?

What counts is what is new at each step, the part that its predecessors do not foretell: level, trend and smooth curves
of two unrelated series agree as often as not, their surprises do not.

Axes: N blocks that both series have; E innovations, a few fewer; P lags of an autoregression.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from foreloom.audit.fingerprint import NUM_BLOCKS

LEAST_CORRELATION = 0.99
"""Of the innovations of a copy; rounding to three digits leaves more."""
_LEAST_COARSE = 0.999
"""The same where the two are alike in coarser steps only than both have: a copy with noise, and not a neighbour."""
_LEAST_SHARE = 0.01
"""Innovations against differences, root mean squares: below it a curve is too simple to be told from others."""
_MOST_REPEATED = 0.98
"""Autocorrelation of innovations at which a series only repeats itself."""
_WINDOW = 12
"""Innovations over which the agreement is followed along the series."""
_LEAST_LOCAL = 0.9
_MOST_BITS = 20.0
"""That one innovation can tell, halved: values have some three digits, however many are written."""
_NEAR = {1: 0.99, 3: 0.9}
"""Order of differences -> their correlation, at least, in the window that was looked up."""
_HALF = NUM_BLOCKS // 2
_FEW = 60
"""Blocks from which on four lags are fitted, and not three."""


class Seed(NamedTuple):
    """Where the two may lie on each other: the step before which a block ends in either, and the steps of a block, see
    `fingerprint.FACTORS`."""

    border: int
    other_border: int
    factor: int
    other_factor: int
    is_reversed: bool


class Stretch(NamedTuple):
    """A copy. Steps are of either series; `scale` times the first (blocks of `factor` steps) plus `shift` is the other
    (blocks of `other_factor` steps), backwards where `is_reversed`. Factors as in a seed."""

    start: int
    length: int
    other_start: int
    other_length: int
    factor: int
    other_factor: int
    is_reversed: bool
    scale: float
    shift: float
    is_shifted: bool
    """Is the shift more than a rounding?"""
    correlation: float
    """Of the innovations, in magnitude."""


def align(one_T: np.ndarray, other_T: np.ndarray, seed: Seed, least_bits: float) -> Stretch | None:
    """The copied stretch around the seed; None where there is none.

    `least_bits` says how unlikely the agreement must be between series that have nothing to do with each other: one
    chance in 2**least_bits. Tried in the smallest steps first that both have, then in those of the seed.
    """
    common = math.gcd(seed.factor, seed.other_factor)
    factor, other_factor = (1 if one == -common else one // common for one in (seed.factor, seed.other_factor))
    # Backwards, the value that a window's ninth block begins with is the one that its eighth began with.
    back = abs(seed.other_factor) - abs(other_factor)
    border = seed.other_border - back * (seed.is_reversed and min(seed.factor, seed.other_factor) < 0)
    finest = seed._replace(factor=factor, other_factor=other_factor, other_border=border)
    found = _align(one_T, other_T, finest, abs(seed.factor), LEAST_CORRELATION, least_bits)
    if found is None and finest != seed:
        found = _align(one_T, other_T, seed, abs(seed.factor), _LEAST_COARSE, least_bits)
    return found


def _align(
    one_T: np.ndarray, other_T: np.ndarray, seed: Seed, reach: int, least: float, least_bits: float
) -> Stretch | None:
    before, after = _num_blocks(len(one_T), seed.border, seed.factor)
    other_before, other_after = _num_blocks(len(other_T), seed.other_border, seed.other_factor)
    if seed.is_reversed:
        other_before, other_after = other_after, other_before
    shared, shared_after = min(before, other_before), min(after, other_after)
    one_N = _blocks(one_T, seed.border, seed.factor, shared, shared_after)
    if seed.is_reversed:
        other_N = _blocks(other_T, seed.other_border, seed.other_factor, shared_after, shared)[::-1]
    else:
        other_N = _blocks(other_T, seed.other_border, seed.other_factor, shared, shared_after)
    near = _HALF * reach // abs(seed.factor)
    if not _agrees_near(one_N[max(shared - near, 0) : shared + near], other_N[max(shared - near, 0) : shared + near]):
        return None
    run = _agreeing(one_N, other_N, shared)
    if run is None:
        return None
    scale, shift = _line(one_N[run], other_N[run])
    if not math.isfinite(scale) or not scale:
        return None
    run = _to_the_ends(one_N, other_N, run, scale, shift)
    scale, shift = _line(one_N[run], other_N[run])
    correlation = _correlation(one_N[run], other_N[run], least_bits)
    if correlation is None or correlation < least:
        return None
    begin = run.start if not seed.is_reversed else 2 * shared - run.stop
    start = seed.border + (run.start - shared) * abs(seed.factor)
    other_start = seed.other_border + (begin - shared) * abs(seed.other_factor)
    length = run.stop - run.start
    return Stretch(
        start=start,
        length=min(length * abs(seed.factor), len(one_T) - start),
        other_start=other_start,
        other_length=min(length * abs(seed.other_factor), len(other_T) - other_start),
        factor=seed.factor,
        other_factor=seed.other_factor,
        is_reversed=seed.is_reversed,
        scale=scale,
        shift=shift,
        is_shifted=abs(shift) > 1e-3 * abs(scale) * float(np.nanstd(one_N[run])),
        correlation=correlation,
    )


def _num_blocks(num_steps: int, border: int, factor: int) -> tuple[int, int]:
    """How many lie before step `border`, and from it on."""
    size = abs(factor)
    before = border // size
    num = num_steps - border % size
    return before, (-(-num // size) if factor < 0 else num // size) - before


def _blocks(values_T: np.ndarray, border: int, factor: int, before: int, after: int) -> np.ndarray:
    """Means over `factor` steps, so many before step `border` and so many from it on. Of a negative factor every first
    value."""
    first, num = border - before * abs(factor), before + after
    if factor < 0:
        return values_T[first::-factor][:num]
    stretch_T = values_T[first : first + num * factor]
    return stretch_T if factor == 1 else stretch_T.reshape(num, factor).sum(axis=1) / factor


def _agrees_near(one_N: np.ndarray, other_N: np.ndarray) -> bool:
    """Of the window that was looked up: do differences agree, and what they hold besides smooth curves? Most of what
    only looks alike ends here."""
    for order in range(1, max(_NEAR) + 1):
        one_N, other_N = one_N[1:] - one_N[:-1], other_N[1:] - other_N[:-1]
        if order in _NEAR:
            power = float(one_N @ one_N) * float(other_N @ other_N)
            if not abs(float(one_N @ other_N)) >= _NEAR[order] * math.sqrt(power):
                return False
    return True


def _agreeing(one_N: np.ndarray, other_N: np.ndarray, seed: int) -> slice | None:
    """The blocks around block `seed` over which innovations agree window by window, missing ones and flat ones passed
    over."""
    one_E, other_E = _innovations(one_N, other_N)
    width = min(_WINDOW, len(one_E))
    is_known_E = np.isfinite(one_E) & np.isfinite(other_E)
    one_E, other_E = (np.where(is_known_E, of_E, 0.0) for of_E in (one_E, other_E))
    begin = max(seed - _WINDOW, 0)
    near = slice(begin, seed + width)
    near_local = np.abs(_local(one_E[near], other_E[near], width)) if len(one_E) >= begin + width else np.empty(0)
    if not (near_local >= _LEAST_LOCAL).any():
        return None
    best = begin + int(np.nanargmax(near_local))
    local = _local(one_E, other_E, width)
    is_empty = ~np.isfinite(local)
    agrees = local * np.sign(local[best]) >= _LEAST_LOCAL
    if not agrees[best]:
        return None
    broken = np.flatnonzero(~(agrees | is_empty))
    place = int(np.searchsorted(broken, best))
    low = int(broken[place - 1]) + 1 if place else 0
    high = int(broken[place]) if place < len(broken) else len(local)
    inside = low + np.flatnonzero(agrees[low:high])
    num_before = len(one_N) - len(one_E)
    return slice(int(inside[0]), int(inside[-1]) + width + num_before)


def _local(one_E: np.ndarray, other_E: np.ndarray, width: int) -> np.ndarray:
    """Their agreement in every window of `width`; NaN where one is flat."""
    of_windows = lambda of_E: np.convolve(of_E, np.ones(width), mode="valid")
    with np.errstate(invalid="ignore", divide="ignore"):
        return of_windows(one_E * other_E) / np.sqrt(of_windows(one_E**2) * of_windows(other_E**2))


def _innovations(one_N: np.ndarray, other_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What an autoregression on the differences of the first leaves of both; NaN where a lag is missing."""
    one_D, other_D = one_N[1:] - one_N[:-1], other_N[1:] - other_N[:-1]
    num = len(one_D) - _num_lags(one_N)
    lagged_PE = np.stack([one_D[lag : lag + num] for lag in range(len(one_D) - num + 1)])
    products = lagged_PE @ lagged_PE.T
    if not np.isfinite(products).all():
        known_PE = lagged_PE[:, np.isfinite(lagged_PE).all(axis=0)]
        products = known_PE @ known_PE.T
    weights_P = np.linalg.lstsq(products[:-1, :-1], products[:-1, -1])[0]
    other_E = other_D[-num:].copy()
    for lag, weight in enumerate(weights_P):
        other_E -= weight * other_D[lag : lag + num]
    return lagged_PE[-1] - weights_P @ lagged_PE[:-1], other_E


def _num_lags(of_N: np.ndarray) -> int:
    return 3 if len(of_N) < _FEW else 4


def _line(one_N: np.ndarray, other_N: np.ndarray) -> tuple[float, float]:
    """Scale and shift that take the first to the second, by least squares."""
    is_known_N = np.isfinite(one_N) & np.isfinite(other_N)
    one_N, other_N = one_N[is_known_N], other_N[is_known_N]
    centred_N = one_N - one_N.mean()
    power = float(centred_N @ centred_N)
    scale = float(centred_N @ (other_N - other_N.mean())) / power if power else math.nan
    return scale, float(other_N.mean() - scale * one_N.mean())


def _to_the_ends(one_N: np.ndarray, other_N: np.ndarray, run: slice, scale: float, shift: float) -> slice:
    """`run` as far as blocks lie on the line."""
    one_E, _ = _innovations(one_N[run], other_N[run])
    off_N = np.abs(other_N - scale * one_N - shift)
    usual = float(np.sqrt(np.nanmean(one_E**2))) * abs(scale)
    is_off_N = ~(off_N <= max(0.1 * usual, 4 * float(np.nanmedian(off_N[run]))))
    low, high = run.start, run.stop
    while low < high and is_off_N[low]:
        low += 1
    while high > low and is_off_N[high - 1]:
        high -= 1
    while low > 0 and not is_off_N[low - 1]:
        low -= 1
    while high < len(off_N) and not is_off_N[high]:
        high += 1
    return slice(low, high)


def _correlation(one_N: np.ndarray, other_N: np.ndarray, least_bits: float) -> float | None:
    """Of the innovations of a stretch; None where it is too low, or the stretch too simple to be told apart."""
    one_E, other_E = _innovations(one_N, other_N)
    is_known_E = np.isfinite(one_E) & np.isfinite(other_E)
    one_E, other_E = one_E[is_known_E], other_E[is_known_E]
    step_D, other_D = (of_D[np.isfinite(of_D)] for of_D in (np.diff(one_N), np.diff(other_N)))
    if not len(one_E) or not one_E @ one_E / len(one_E) > _LEAST_SHARE**2 * (step_D @ step_D) / len(step_D):
        return None
    one_E, other_E = _without_outliers(one_E), _without_outliers(other_E)
    correlation = abs(float(one_E @ other_E)) / math.sqrt(max(float(one_E @ one_E) * float(other_E @ other_E), 1e-300))
    if correlation < LEAST_CORRELATION or _repeats(one_E):
        return None
    even = float(one_E @ one_E) ** 2 / float((one_E**2) @ (one_E**2))
    freedom = min(len(one_E) - _num_lags(one_N), 3 * even)
    bits = (freedom - 2) / 2 * min(-math.log2(max(1 - correlation**2, 1e-12)), _MOST_BITS)
    return correlation if min(bits, _bits_of(step_D), _bits_of(other_D)) >= least_bits else None


def _without_outliers(of_E: np.ndarray) -> np.ndarray:
    """One shock that two series share must not stand for all the rest."""
    most = 4 * float(np.abs(of_E).mean())
    return np.clip(of_E, -most, most)


def _repeats(of_E: np.ndarray) -> bool:
    """Is it a period over and over, of two steps or more?"""
    num = len(of_E)
    power = np.abs(np.fft.rfft(of_E, 2 * num)) ** 2
    products = np.fft.irfft(power)[: num // 2 + 1]
    sums = np.concatenate([[0.0], np.cumsum(of_E**2)])
    lag = np.arange(2, num // 2 + 1)
    most = np.sqrt((sums[num] - sums[lag]) * sums[num - lag])
    return bool((products[lag] > _MOST_REPEATED * most).any())


def _bits_of(step_D: np.ndarray) -> float:
    """What differences can tell at most: their entropy (Miller and Madow's estimate) times their number."""
    rounded_D = np.rint(step_D / (1e-3 * np.abs(step_D).mean()))
    count_K = np.unique(rounded_D, return_counts=True)[1]
    share_K = count_K / len(step_D)
    return len(step_D) * float(-(share_K @ np.log2(share_K))) + (len(count_K) - 1) / (2 * math.log(2))
