"""Do experts share the work by kinds of series? Shares, and what an expert's number tells of a series' kind.

Axes: N series, E experts, K kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_PERMUTATIONS = 999


@dataclass(frozen=True)
class KindUse:
    """Where the series of one kind go. Every series counts alike, however many variates or steps of it were routed."""

    kind: str
    num_series: int
    share_E: np.ndarray
    """Of the kind's choices; sums to 1."""
    probability_E: np.ndarray
    """The mean of the router's probabilities, before the choice."""

    @property
    def entropy(self) -> float:
        """Of the shares over log E: 1 is even use, 0 one expert for all."""
        if len(self.share_E) == 1:
            return 1.0
        return float(_bits(self.share_E) / np.log2(len(self.share_E)))


@dataclass(frozen=True)
class Specialization:
    """How one layer's experts share the kinds."""

    kinds: tuple[KindUse, ...]
    """By name."""
    total: KindUse
    """All series."""
    information_bits: float
    """Mutual information of kind and expert: what a choice's expert tells of its series' kind."""
    most_bits: float
    """The most it could be: the kinds' entropy, or log2(E / k) where choices fall on k of the E experts."""
    chance_bits: float
    """Its mean where the kinds are dealt to the series at random: so much is noise."""
    chance_95_bits: float
    """What it exceeds then in one case of twenty."""
    p_value: float
    """Share of the random deals, the true one included, that reach `information_bits`."""

    @property
    def unused(self) -> tuple[int, ...]:
        """Experts without a single choice."""
        return tuple(np.flatnonzero(self.total.share_E == 0).tolist())


def specialization(
    share_NE: np.ndarray, probability_NE: np.ndarray, kinds: Sequence[str], top_k: int
) -> Specialization:
    """Of series whose choices fall on the experts in these shares (a row sums to 1), `top_k` experts a choice."""
    names, kind_N = np.unique(np.array(kinds, dtype=str), return_inverse=True)
    count_K = np.bincount(kind_N)
    uses = [
        KindUse(str(name), int(count_K[k]), share_NE[kind_N == k].mean(0), probability_NE[kind_N == k].mean(0))
        for k, name in enumerate(names)
    ]
    weight_K = count_K / len(kind_N)
    information = _information(share_NE, kind_N, count_K)
    generator = np.random.default_rng(0)
    dealt = np.array([_information(share_NE, generator.permutation(kind_N), count_K) for _ in range(NUM_PERMUTATIONS)])
    return Specialization(
        kinds=tuple(uses),
        total=KindUse("all", len(kind_N), share_NE.mean(0), probability_NE.mean(0)),
        information_bits=information,
        most_bits=min(_bits(weight_K), float(np.log2(share_NE.shape[1] / top_k))),
        chance_bits=float(dealt.mean()),
        chance_95_bits=float(np.quantile(dealt, 0.95)),
        # A hair's breadth, so that sums in another order count as equal.
        p_value=float((1 + np.count_nonzero(dealt >= information - 1e-12)) / (1 + NUM_PERMUTATIONS)),
    )


def _information(share_NE: np.ndarray, kind_N: np.ndarray, count_K: np.ndarray) -> float:
    """I(kind; expert) = H(expert) - sum_k p(k) H(expert | k), in bits (Cover and Thomas 2006, eq. 2.40)."""
    member_KN = np.arange(len(count_K))[:, None] == kind_N
    share_KE = member_KN @ share_NE / count_K[:, None]
    conditional = (count_K / len(kind_N)) @ np.array([_bits(share_E) for share_E in share_KE])
    return max(0.0, _bits(share_NE.mean(0)) - float(conditional))


def _bits(share: np.ndarray) -> float:
    """Entropy."""
    return float(-(share * np.log2(np.where(share > 0, share, 1.0))).sum())
