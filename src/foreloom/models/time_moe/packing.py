"""Short rows put behind one another, where padding them to the longest would cost more.

Axes: R rows before packing, P packed rows, S steps of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WORTH_IT = 0.6
"""Packed rows attend through a mask, which is slower: they pay off at this share of the padded steps and below."""


class Packing(NamedTuple):
    """Where each row goes."""

    row_R: np.ndarray
    start_R: np.ndarray
    num_rows: int


def pack(length_R: np.ndarray, width: int) -> Packing | None:
    """Rows of `length_R` steps into rows of `width`, by first fit, longest first; None where it is not worth it."""
    row_R, start_R = np.zeros_like(length_R), np.zeros_like(length_R)
    used: list[int] = []
    for row in np.argsort(-length_R, kind="stable"):
        length = int(length_R[row])
        place = next((i for i, steps in enumerate(used) if steps + length <= width), len(used))
        if place == len(used):
            used.append(0)
        row_R[row], start_R[row] = place, used[place]
        used[place] += length
    return Packing(row_R, start_R, len(used)) if len(used) <= WORTH_IT * len(length_R) else None


def lay_out(packing: Packing, length_R: np.ndarray, arrays_RS: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Each array (R, S) packed to (P, S), zeros where nothing lies; and last the segments, int64 (P, S).

    A step's segment is the number of the row it came from, or R where nothing lies.
    """
    num_rows, width = len(length_R), arrays_RS[0].shape[1]
    from_R, from_S = np.nonzero(np.arange(width) < length_R[:, None])
    to_P, to_S = packing.row_R[from_R], packing.start_R[from_R] + from_S
    packed = []
    for array_RS in arrays_RS:
        packed_PS = np.zeros((packing.num_rows, width), dtype=array_RS.dtype)
        packed_PS[to_P, to_S] = array_RS[from_R, from_S]
        packed.append(packed_PS)
    segment_PS = np.full((packing.num_rows, width), num_rows, dtype=np.int64)
    segment_PS[to_P, to_S] = from_R
    return (*packed, segment_PS)
