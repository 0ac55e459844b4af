"""A pseudo-random order of any number of things, as a function: place in, number out, nothing kept in memory.

Axes: N places.
"""

from __future__ import annotations

import numpy as np

from foreloom.data.hashing import random_bits

_NUM_ROUNDS = 6
_MIN_HALF_BITS = 3
"""Halves of fewer bits have too few round functions to make the orders of small sets differ."""


def permute(seed: int, stream: str, epoch_N: np.ndarray, place_N: np.ndarray, size: int) -> np.ndarray:
    """int64 (N,): the number at each place of each epoch's own permutation of 0 ... size - 1.

    A Feistel network (Luby and Rackoff 1988) permutes the numbers of an even count of bits; a result of `size` or more
    is put through again until it falls below, which leaves a permutation of what is below (cycle walking, Black and
    Rogaway 2002). About two passes are needed, four at most on average, but for sizes under 64.
    """
    half_bits = max(_MIN_HALF_BITS, -(-(size - 1).bit_length() // 2))
    number_N = place_N.astype(np.uint64)
    pending = np.arange(len(number_N))
    while len(pending):
        number_N[pending] = _feistel(seed, stream, epoch_N[pending].astype(np.uint64), number_N[pending], half_bits)
        pending = pending[number_N[pending] >= size]
    return number_N.astype(np.int64)


def _feistel(seed: int, stream: str, epoch_N: np.ndarray, number_N: np.ndarray, half_bits: int) -> np.ndarray:
    bits, mask = np.uint64(half_bits), np.uint64(2**half_bits - 1)
    left_N, right_N = number_N >> bits, number_N & mask
    for number in range(_NUM_ROUNDS):
        random_N = random_bits(seed, stream, f"permutation {number}", (epoch_N << bits) + right_N)
        left_N, right_N = right_N, left_N ^ (random_N & mask)
    return (left_N << bits) | right_N
