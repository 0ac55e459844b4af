"""How ranks share the batches of one plan: in turn, with as many forwards on every rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Reduce = Callable[[np.ndarray], np.ndarray]
"""Sums a float64 vector over ranks."""


def turns(num_batches: int, rank: int, world_size: int) -> Iterator[tuple[int, bool]]:
    """The batch of each turn of a rank, and whether it counts.

    A rank with no batch left repeats the first one, to be dropped: forwards of a sharded module must stay in step.
    """
    for first in range(0, num_batches, world_size):
        mine = first + rank
        yield (mine, True) if mine < num_batches else (0, False)


def alone(vector: np.ndarray) -> np.ndarray:
    """`Reduce` of a single rank."""
    return vector
