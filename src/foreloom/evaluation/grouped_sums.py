"""Metric sums kept apart by window and target, for suites that average over those: the definitions of fev.

A group is one target in the k-th window of every series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Protocol, Self

import numpy as np

from foreloom.evaluation.metrics import MetricSums

Group = tuple[int, int]
"""Number of the window, number of the target."""


class Sums(Protocol):
    """What an evaluation adds up: `MetricSums`, or `GroupedSums`. Both sides of a `+` are of one kind."""

    @property
    def num_windows(self) -> np.ndarray: ...

    @property
    def num_points(self) -> np.ndarray: ...

    def __add__(self, other: Any, /) -> Self: ...

    def vector(self) -> np.ndarray: ...

    def with_vector(self, vector: np.ndarray) -> Self: ...

    def scores(self) -> dict[str, float]: ...


LEAST_SCALE = 1.0
"""fev-bench's epsilon: WAPE and WQL divide by at least this mean |label|, so that targets near zero do not explode."""


@dataclass(frozen=True)
class GroupedSums:
    """What a set of windows adds up to, a `MetricSums` a group; it adds, travels and scores as one `MetricSums` does.

    A sum over some of the windows may hold some of the groups.
    """

    groups: Mapping[Group, MetricSums]

    @classmethod
    def zero(cls, groups: Iterable[Group], quantile_levels: Sequence[float]) -> Self:
        """The sums of no windows, with a place for every group."""
        return cls({group: MetricSums.zero(quantile_levels) for group in sorted(set(groups))})

    def __add__(self, other: GroupedSums) -> Self:
        """`self` with the groups of `other` added, all of which it must have."""
        assert other.groups.keys() <= self.groups.keys()
        added = {group: self.groups[group] + sums for group, sums in other.groups.items()}
        return type(self)({**self.groups, **added})

    @property
    def pooled(self) -> MetricSums:
        """The sums of all groups together."""
        return reduce(add, self.groups.values())

    @property
    def num_windows(self) -> np.ndarray:
        return self.pooled.num_windows

    @property
    def num_points(self) -> np.ndarray:
        return self.pooled.num_points

    def vector(self) -> np.ndarray:
        """Every sum in one float64 vector, for one all-reduce."""
        return np.concatenate([sums.vector() for sums in self.groups.values()])

    def with_vector(self, vector: np.ndarray) -> Self:
        """The sums that `vector()` of these groups would give back as `vector`."""
        pieces = np.split(vector, len(self.groups))
        return type(self)(
            {group: sums.with_vector(piece) for (group, sums), piece in zip(self.groups.items(), pieces, strict=True)}
        )

    def scores(self) -> dict[str, float]:
        """The scores of all points together, but SQL, MASE, WAPE and WQL as means over groups of each one's own.

        Groups that cannot be scored are left out. Those of fev 0.8: `autogluon/fev`, fev/metrics.py.
        """
        own = [_fev_scores(sums) for sums in self.groups.values()]
        means = {}
        for metric in own[0]:
            values = [scores[metric] for scores in own if np.isfinite(scores[metric])]
            means[metric] = float(np.mean(values)) if values else float("nan")
        return self.pooled.scores() | means


def _fev_scores(sums: MetricSums) -> dict[str, float]:
    scores = sums.scores()
    if not sums.num_points:
        return {metric: float("nan") for metric in ("SQL", "MASE", "WAPE", "WQL")}
    scale = max(float(sums.abs_label / sums.num_points), LEAST_SCALE)
    return {
        "SQL": scores["SQL"],
        "MASE": scores["MASE"],
        "WAPE": float(sums.abs_error / sums.num_points) / scale,
        "WQL": float(sums.quantile_loss_Q.mean() / sums.num_points) / scale,
    }
