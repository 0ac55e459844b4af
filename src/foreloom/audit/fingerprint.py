"""The numbers by which stretches of series are looked up: the same for a copy that was rescaled, shifted, flipped,
reversed, or made coarser: by means over steps, or by every second, third ... value.

A fingerprint is taken of 16 blocks of so many steps each, of which the mean counts, or the first value: their 15
differences, divided by their root mean square and rounded. The scale and the shift of a series drop out; of a series
and its reverse and their negatives the least number is taken. Where fingerprints are taken depends on the values alone
(the middle difference is larger than its neighbours), so a copy has them at the same places wherever it begins.

Axes: T steps of all rows of a batch, one after the other; P places; W blocks of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from foreloom.data.hashing import random_bits

NUM_BLOCKS = 16
"""Blocks of a window: the shortest stretch that can be told apart."""
FACTORS = (1, 2, 3, 4, 5, 6, 7, 12, 24, 48, 96, 144, 168, 288, -2, -3, -4, -6, -12, -24)
"""Steps of a block, negative where its first value counts and not the mean: 5, 10, 15 and 30 minutes, hours, days and
weeks, months, quarters and years in terms of one another."""
_PARTS = {2: (1, 1), 3: (2, 1), 4: (2, 2), 5: (4, 1), 6: (3, 3), 7: (6, 1), 12: (6, 6), 24: (12, 12), 48: (24, 24),
          96: (48, 48), 144: (96, 48), 168: (144, 24), 288: (144, 144)}  # fmt: skip
"""How sums over a factor are made of two sums over earlier ones."""
_PHASES = 48
"""Blocks of more steps begin at every second, third ... step only: so many places a block."""
_DENSE_STEPS = 64
"""Of shorter rows every window is taken."""
_WIDTH = 0.5
"""Of the steps that differences are rounded to, in root mean squares."""
_FINE = 32
"""The same of their shape, parts of a root mean square: none is larger than its square root of 15 allows, 124."""
_LEAST_MOVING = 6
"""Differences of a window that must not round to 0: fewer are a shape that many series have."""
_ROUNDING = 1e-6
"""Differences of a window against the reach of the row's values; less is what rounding leaves of nothing."""
_HALF = NUM_BLOCKS // 2
_DIGITS_W = (random_bits(0, "audit", "digits", np.arange(NUM_BLOCKS - 1)) >> np.uint64(20)).astype(np.float64)
_DIGITS_2W = np.stack([_DIGITS_W, _DIGITS_W[::-1]])
"""What differences are multiplied by, forwards and backwards. Sums stay below 2^53, so they are exact."""


class Fingerprints(NamedTuple):
    """Places in a batch of rows and what was found there, (P,) each."""

    key: np.ndarray
    """uint64."""
    row: np.ndarray
    """int32, of the batch."""
    border: np.ndarray
    """int32, the step of the row at which the ninth of the window's blocks begins."""
    factor: np.ndarray
    """int16, one of FACTORS."""
    is_backwards: np.ndarray
    """bool: the key is that of the reverse."""
    shape: np.ndarray
    """int8 (P, 15): the differences in 32nds of their root mean square, as the key was made of them."""

    def at(self, which: np.ndarray) -> Fingerprints:
        """Those of a mask, or of indices."""
        return Fingerprints(*(column[which] for column in self))


def fingerprints(rows: Sequence[np.ndarray], wanted: Callable[[np.ndarray], np.ndarray] | None = None) -> Fingerprints:
    """Of rows (T,) each, float64, NaN is missing. Windows that hold a missing value have none. `wanted` says which of
    some keys, by a mask; none: all."""
    length_R = np.array([len(row) for row in rows])
    begin_R = np.cumsum(length_R) - length_R
    row_T = np.repeat(np.arange(len(rows), dtype=np.int32), length_R)
    sums = {1: np.concatenate([_standardized(row) for row in rows])}
    found = []
    for kind in FACTORS:
        factor = abs(kind)
        if factor * NUM_BLOCKS > length_R.max(initial=0):
            continue
        if kind > 1:
            first, second = _PARTS[factor]
            sums[factor] = _sum_after(sums[first], sums[second], first)
        values_T = sums[factor if kind > 0 else 1]
        with np.errstate(invalid="ignore"):
            place_P = _places(values_T, factor, length_R)
        row_P = row_T[place_P]
        begin_P = begin_R[row_P]
        fits_P = place_P - (_HALF - 1) * factor >= begin_P
        fits_P &= place_P + (_HALF + 1) * factor <= begin_P + length_R[row_P]
        if (stride := _phase_stride(factor)) > 1:
            fits_P &= (place_P - begin_P) % stride == 0
        found.append(_of_places(values_T, kind, place_P[fits_P], row_P[fits_P], begin_P[fits_P], wanted))
    return Fingerprints(*map(np.concatenate, zip(*found, strict=True))) if found else _NONE


def _phase_stride(factor: int) -> int:
    """Steps between the places where blocks of `factor` steps may begin."""
    return -(-factor // _PHASES)


_NONE = Fingerprints(
    np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int16), np.empty(0, bool),
    np.empty((0, NUM_BLOCKS - 1), np.int8),
)  # fmt: skip


def _standardized(row: np.ndarray) -> np.ndarray:
    """Near 0 and of the size of 1, so that sums of rows that lie side by side lose nothing."""
    finite = row[np.isfinite(row)]
    if not len(finite):
        return row
    scale = float(np.abs(finite - finite[0]).max())
    return np.where(np.isfinite(row), row - finite[0], np.nan) / (scale or 1.0)


def _sum_after(first_T: np.ndarray, second_T: np.ndarray, distance: int) -> np.ndarray:
    """At each step the first sum, and the second that begins `distance` steps later; NaN at the end."""
    sum_T = np.full_like(first_T, np.nan)
    np.add(first_T[:-distance], second_T[distance:], out=sum_T[:-distance])
    return sum_T


def _places(values_T: np.ndarray, factor: int, length_R: np.ndarray) -> np.ndarray:
    """int64 (P,): where the middle one of two blocks begins, the earlier of the two whose difference is larger than
    those of two blocks before and after; of short rows every step."""
    step_T = np.abs(values_T[factor:] - values_T[:-factor])
    reach = 2 * factor
    middle_T = step_T[reach:-reach]
    is_peak_T = middle_T > step_T[factor : -3 * factor]
    for shift in (3 * factor, 0, 4 * factor):
        is_peak_T &= middle_T > step_T[shift : shift + len(middle_T)]
    place_P = np.flatnonzero(is_peak_T) + reach
    is_short_R = length_R <= _DENSE_STEPS
    if is_short_R.any() and factor * NUM_BLOCKS <= _DENSE_STEPS:
        of_short = np.flatnonzero(np.repeat(is_short_R, length_R))
        place_P = np.union1d(place_P, of_short[of_short < len(values_T) - factor])
    return place_P


def _of_places(
    values_T: np.ndarray,
    kind: int,
    place_P: np.ndarray,
    row_P: np.ndarray,
    begin_P: np.ndarray,
    wanted: Callable[[np.ndarray], np.ndarray] | None,
) -> Fingerprints:
    """`place_P`: where the eighth block begins; whole windows only. `values_T`: what counts of a block, where it
    begins."""
    factor = abs(kind)
    blocks_WP = np.empty((NUM_BLOCKS, len(place_P)))
    for number in range(NUM_BLOCKS):
        np.take(values_T, place_P + factor * (number + 1 - _HALF), out=blocks_WP[number])
    step_WP = blocks_WP[1:] - blocks_WP[:-1]
    is_falling_P = step_WP[_HALF - 1] < 0
    with np.errstate(invalid="ignore", divide="ignore"):
        size_P = np.sqrt(np.einsum("wp,wp->p", step_WP, step_WP) / len(step_WP))
        scale_P = 1 / (_WIDTH * size_P)
        step_WP *= np.where(is_falling_P, -scale_P, scale_P)
    rounded_WP = np.rint(step_WP)
    with np.errstate(invalid="ignore"):
        # A product by BLAS is no faster, and its threads take the cores from the other processes.
        forwards_P, backwards_P = np.einsum("dw,wp->dp", _DIGITS_2W, rounded_WP)
        is_good_P = np.isfinite(forwards_P) & (size_P > _ROUNDING * max(kind, 1))
        is_good_P &= np.count_nonzero(rounded_WP, axis=0) >= _LEAST_MOVING
    good = np.flatnonzero(is_good_P)
    key_P = random_bits(0, "audit", "key", np.minimum(forwards_P, backwards_P)[good].astype(np.int64))
    if wanted is not None:
        chosen = np.flatnonzero(wanted(key_P))
        good, key_P = good[chosen], key_P[chosen]
    is_backwards_P = backwards_P[good] < forwards_P[good]
    shape_PW = np.rint(step_WP[:, good] * (_WIDTH * _FINE)).astype(np.int8).T
    shape_PW = np.where(is_backwards_P[:, None], shape_PW[:, ::-1], shape_PW)
    return Fingerprints(
        key=key_P,
        row=row_P[good],
        border=(place_P[good] + factor - begin_P[good]).astype(np.int32),
        factor=np.full(len(good), kind, np.int16),
        is_backwards=is_backwards_P,
        shape=shape_PW,
    )
