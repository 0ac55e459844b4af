"""Who was asked: where series were sent, and how evenly a model's experts are used.

Axes: R rows, E experts, K experts a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from foreloom.models.chronos_t5.experts import SampleRouting
from foreloom.objectives.router import load_figures


class RoutingInfo(NamedTuple):
    """Routing of the rows of a forecast."""

    router_probs: np.ndarray
    """float32 (R, E)."""
    expert_indices: np.ndarray
    """int64 (R, K), the likeliest first."""
    top_k_probs: np.ndarray
    """float32 (R, K), the weights of those: probabilities divided by their sum."""

    @property
    def num_experts(self) -> int:
        return self.router_probs.shape[1]

    @property
    def num_active_experts(self) -> int:
        return self.expert_indices.shape[1]

    @classmethod
    def of(cls, routing: SampleRouting) -> RoutingInfo:
        probability_RE = routing.logits_BE.softmax(-1)
        return cls(*(x.cpu().numpy() for x in (probability_RE, routing.expert_BK, routing.weight_BK)))


@dataclass(frozen=True)
class UsageStatistics:
    """How a model's experts were used."""

    num_samples: int
    counts: tuple[int, ...]
    """Samples that each expert took part in."""
    shares: tuple[float, ...]
    """Of all choices."""
    entropy: float
    """Of the shares over log E: 1 is even use, 0 one expert for all."""
    num_unused: int


class ExpertUsage:
    """Counts as forecasts are made."""

    def __init__(self, num_experts: int) -> None:
        self._num_experts = num_experts
        self.reset()

    def note(self, routing: SampleRouting) -> None:
        """Count the rows of a batch."""
        chosen = routing.expert_BK.cpu().numpy()
        self._count_E += np.bincount(chosen.ravel(), minlength=self._num_experts)
        self._num_samples += len(chosen)

    def statistics(self) -> UsageStatistics:
        """Since the last `reset`."""
        figures = load_figures(self._count_E[None].astype(np.float64))
        shares = self._count_E / max(int(self._count_E.sum()), 1)
        return UsageStatistics(
            num_samples=self._num_samples,
            counts=tuple(self._count_E.tolist()),
            shares=tuple(shares.tolist()),
            entropy=figures["expert_entropy"],
            num_unused=int(figures["dead_experts"]),
        )

    def reset(self) -> None:
        """Count from 0."""
        self._count_E = np.zeros(self._num_experts, np.int64)
        self._num_samples = 0
