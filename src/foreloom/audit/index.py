"""The fingerprints of a benchmark, sorted, and the places of other series that may hold copies of it.

Axes: K entries of the index; P fingerprints asked for; M matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from foreloom.audit.alignment import Seed
from foreloom.audit.fingerprint import Fingerprints, fingerprints

MOST_ENTRIES = 2**24
"""Of an index, about: 47 bytes each."""
_MOST_OF_A_KEY = 48
"""Entries; a shape that is there more often tells nothing."""
_MOST_OF_A_ROW = 64
"""Candidates."""
_SHORT_STEPS = 48
"""Rows of more must have two fingerprints in common at one place: by chance they often have one."""
_MOST_OFF = 2.5
"""How far shapes of one key may be apart, root mean square; by chance it is 6.5. See `Fingerprints.shape`."""
_ENOUGH = 512
"""Fingerprints of one row and factor; of more, every second, fourth ... is kept, chosen by its key."""
_FILTER_BITS = 28


class Candidate(NamedTuple):
    """A row of the benchmark that a row asked for may hold a part of, and where."""

    row: int
    """Of the rows asked for."""
    entry: int
    """Row of the benchmark."""
    seed: Seed
    num_votes: int
    """Fingerprints that say so."""


class Index:
    """`batches`: the benchmark's rows, (T,) float64 each, some at a time; they are numbered as they come.

    `num_points`: of all of them.
    """

    def __init__(self, batches: Iterable[Sequence[np.ndarray]], num_points: int):
        # A fingerprint a step, about: thinned so that they fit.
        self._least_thinned = max(0, int(np.ceil(np.log2(max(num_points / MOST_ENTRIES, 1)))))
        parts: list[Fingerprints] = []
        lengths: list[int] = []
        first = 0
        for rows in batches:
            part = self._thinned(fingerprints(rows))
            parts.append(part._replace(row=part.row + np.int32(first)))
            first += len(rows)
            lengths += map(len, rows)
        self._is_short = np.array(lengths) <= _SHORT_STEPS
        every = Fingerprints(*map(np.concatenate, zip(*parts, strict=True)))
        del parts
        order = np.argsort(every.key, kind="stable")
        key_K = every.key[order]
        begin = np.flatnonzero(np.concatenate([[True], key_K[1:] != key_K[:-1]])) if len(key_K) else order
        count = np.diff(np.append(begin, len(key_K)))
        is_kept = count <= _MOST_OF_A_KEY
        self._entries = every.at(order[np.repeat(is_kept, count)])
        self._keys = key_K[begin[is_kept]]
        self._begin = np.concatenate([[0], np.cumsum(count[is_kept])]).astype(np.int32)
        self._filter = np.zeros(2**_FILTER_BITS // 8, np.uint8)
        byte_K, bit_K = self._places(self._entries.key)
        np.bitwise_or.at(self._filter, byte_K, bit_K)

    def __len__(self) -> int:
        return len(self._entries.key)

    def candidates(self, rows: Sequence[np.ndarray]) -> Iterator[Candidate]:
        """Where rows, (T,) float64 each, may hold parts of the benchmark: row by row, the likeliest first."""
        asked = fingerprints(rows, self._may_hold)
        order = np.argsort(asked.key)  # what is looked up one after the other lies side by side
        place_P = np.empty(len(order), np.int64)
        place_P[order] = np.searchsorted(self._keys, asked.key[order])
        there = np.flatnonzero(self._keys.take(place_P, mode="clip") == asked.key)
        low_P = self._begin[place_P[there]]
        num_P = self._begin[place_P[there] + 1] - low_P
        which_M = np.repeat(there, num_P)
        entry_M = np.repeat(low_P - (np.cumsum(num_P) - num_P), num_P) + np.arange(len(which_M))
        off_MW = asked.shape[which_M].astype(np.int32) - self._entries.shape[entry_M]
        is_alike_M = np.einsum("mw,mw->m", off_MW, off_MW) <= _MOST_OFF**2 * off_MW.shape[1]
        factor_M, other_M = self._entries.factor[entry_M], asked.factor[which_M]
        is_alike_M &= (np.sign(other_M) == np.sign(factor_M)) | (other_M == 1) | (factor_M == 1)
        if not is_alike_M.any():
            return iter(())
        theirs, ours = asked.at(which_M[is_alike_M]), self._entries.at(entry_M[is_alike_M])
        is_short = np.array([len(row) for row in rows]) <= _SHORT_STEPS
        return _by_diagonal(theirs, ours, np.where(is_short[theirs.row] | self._is_short[ours.row], 1, 2))

    def _may_hold(self, key_P: np.ndarray) -> np.ndarray:
        """bool (P,): false where no entry has the key; true of one in some hundred of these, too."""
        byte_P, bit_P = self._places(key_P)
        return (self._filter[byte_P] & bit_P) != 0

    def _thinned(self, found: Fingerprints) -> Fingerprints:
        """Without all but one of 2, 4, 8 ... of those that a long row has many of."""
        group = found.row.astype(np.int64) * 2**16 + found.factor.astype(np.int64)
        _, which, count = np.unique(group, return_inverse=True, return_counts=True)
        bits = np.maximum(np.ceil(np.log2(count / _ENOUGH)), 0).astype(np.uint64)
        bits = np.where(count > _ENOUGH // 4, np.maximum(bits, np.uint64(self._least_thinned)), bits)[which]
        is_kept = found.key & ((np.uint64(1) << bits) - np.uint64(1)) == 0
        return found.at(is_kept)

    def _places(self, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Byte and bit of the filter, by the upper bits of the key."""
        place = key >> np.uint64(64 - _FILTER_BITS)
        return (place >> np.uint64(3)).astype(np.int64), (np.uint8(1) << (place & np.uint64(7)).astype(np.uint8))


def _by_diagonal(theirs: Fingerprints, ours: Fingerprints, least_M: np.ndarray) -> Iterator[Candidate]:
    """Matches that lay two rows on each other at one place are one candidate; `least_M` is how many it takes."""
    factor_M, other_M = ours.factor.astype(np.int64), theirs.factor.astype(np.int64)
    is_reversed_M = ours.is_backwards != theirs.is_backwards
    common_M = np.gcd(factor_M, other_M)
    ours_M, theirs_M = ours.border * np.abs(other_M) // common_M, theirs.border * np.abs(factor_M) // common_M
    diagonal_M = np.where(is_reversed_M, ours_M + theirs_M, ours_M - theirs_M)
    columns = (diagonal_M, is_reversed_M, other_M // common_M, factor_M // common_M, ours.row, theirs.row)
    order = np.lexsort(columns)
    changes = np.zeros(len(order), bool)
    changes[0] = True
    for column in columns:
        changes[1:] |= column[order][1:] != column[order][:-1]
    begin = np.flatnonzero(changes)
    num_votes = np.diff(np.append(begin, len(order)))
    first = order[begin]
    enough = num_votes >= least_M[first]
    first, num_votes = first[enough], num_votes[enough]
    ranked = np.lexsort((-num_votes, theirs.row[first]))
    row_C = theirs.row[first[ranked]]
    ranked = ranked[np.arange(len(ranked)) - np.searchsorted(row_C, row_C) < _MOST_OF_A_ROW]
    chosen = first[ranked]
    columns = (theirs.row, ours.row, ours.border, theirs.border, factor_M, other_M, is_reversed_M)
    values = [column[chosen].tolist() for column in columns]
    return (
        Candidate(row, entry, Seed(*seed), votes)
        for row, entry, *seed, votes in zip(*values, num_votes[ranked].tolist(), strict=True)
    )
