"""Counter-based random numbers and orders: pure functions of (seed, stream, use, index), whole arrays at a time.

Axes: N indices, or places of an order.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_NUM_ROUNDS = 6
_MIN_HALF_BITS = 3
"""Halves of fewer bits have too few round functions to make the orders of small sets differ."""


@lru_cache(maxsize=4096)
def _keys(seed: int, stream: str, use: str) -> tuple[np.uint64, np.uint64]:
    digest = blake2b(f"{seed}/{stream}/{use}".encode(), digest_size=16).digest()
    return np.uint64(int.from_bytes(digest[:8], "little")), np.uint64(int.from_bytes(digest[8:], "little"))


def _mix(bits_N: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every input bit changes all output bits."""
    bits_N = (bits_N ^ (bits_N >> np.uint64(30))) * _MIX_1
    bits_N = (bits_N ^ (bits_N >> np.uint64(27))) * _MIX_2
    return bits_N ^ (bits_N >> np.uint64(31))


def random_bits(seed: int, stream: str, use: str, index_N: np.ndarray) -> np.ndarray:
    """uint64 (N,). `use` names the decision drawn ("source", "cut", ...): decisions are independent of one another."""
    first, second = _keys(seed, stream, use)
    return _mix(_mix(index_N.astype(np.uint64) * _GOLDEN + first) ^ second)


def uniform(seed: int, stream: str, use: str, index_N: np.ndarray) -> np.ndarray:
    """float64 (N,) in [0, 1), with 53 random bits."""
    return (random_bits(seed, stream, use, index_N) >> np.uint64(11)) * 2.0**-53


def integers(seed: int, stream: str, use: str, index_N: np.ndarray, below: np.ndarray | int) -> np.ndarray:
    """int64 (N,), uniform in [0, below); `below` is one number or one an index, at most 2**40 (bias under 2**-13)."""
    return (uniform(seed, stream, use, index_N) * below).astype(np.int64)


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
