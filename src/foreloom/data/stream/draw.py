"""The sample stream: sample i is a pure function of (seed, stream, i), drawn for whole arrays of indices at once.

Cuts are drawn at random without end, or lie a stride apart and come once an epoch.

Axes: N samples, K places for the series of one sample, M series: of all samples together (members, in sample order), or
the usable ones of all sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreloom.data.config import DataConfig
from foreloom.data.hashing import integers, permute, uniform
from foreloom.data.source import Source
from foreloom.data.stream.selection import Selection


@dataclass(frozen=True)
class Samples:
    """N consecutive samples: where to cut which series of which source."""

    first: int
    """Stream index of the first sample."""
    source_N: np.ndarray
    """int32."""
    num_rows_N: np.ndarray
    """int64, rows of all members together."""
    length_N: np.ndarray
    """int64, context steps of the longest member."""
    offsets_N: np.ndarray
    """int64 (N + 1,): members of sample n are offsets_N[n] to offsets_N[n + 1]."""
    item_M: np.ndarray
    """int64, row of the series in its source."""
    cut_M: np.ndarray
    """int64, first step of the horizon."""

    def __len__(self) -> int:
        return len(self.source_N)


class SampleStream:
    """Draws samples from a mixture of sources.

    A sample's source follows the mixture weights exactly, whatever the sizes; its series follows
    `config.series_choice`; its cut is uniform in [min_past, length - prediction_length]. A group's members are distinct
    univariate series of the same source, at one distance from their ends: the members of a panel that ends on one day
    stay aligned in time, and none shows another's horizon.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        selections: Sequence[Selection],
        config: DataConfig,
        *,
        seed: int,
        stream: str = "train",
    ):
        self._sources = sources
        self._config = config
        self._seed = seed
        self._stream = stream
        weights = np.array([source.weight for source in config.sources])
        self._cumulative_weights = np.cumsum(weights / weights.sum())
        self._selections = selections
        self._choices = [
            _SeriesChoice(source, selection, config) for source, selection in zip(sources, selections, strict=True)
        ]

    def draw(self, first: int, count: int) -> Samples:
        """Samples first, ..., first + count - 1."""
        index_N = np.arange(first, first + count, dtype=np.int64)
        # The cumulative weights may end a rounding error below 1.
        last_source = len(self._choices) - 1
        source_N = np.searchsorted(self._cumulative_weights, self._uniform("source", index_N), side="right")
        source_N = np.minimum(source_N, last_source).astype(np.int32)

        group = self._config.group
        num_places = group.max_size if group.probability else 1
        item_NK = np.full((count, num_places), -1, dtype=np.int64)
        length_NK = np.zeros((count, num_places), dtype=np.int64)
        rows_NK = np.zeros((count, num_places), dtype=np.int64)
        for number, choice in enumerate(self._choices):
            here = np.flatnonzero(source_N == number)
            item_nK = item_NK[here]
            item_nK[:, 0] = choice.pick(self._uniform("series", index_N[here]))
            if group.probability:
                self._add_members(choice, index_N[here], item_nK)
            present_nK = item_nK >= 0
            item_NK[here] = item_nK
            length_NK[here] = np.where(present_nK, self._selections[number].lengths[item_nK], np.iinfo(np.int64).max)
            rows_NK[here] = np.where(present_nK, self._sources[number].num_rows[item_nK], 0)

        present_NK = item_NK >= 0
        num_cuts_N = length_NK.min(axis=1) - self._config.min_length + 1
        distance_N = integers(self._seed, self._stream, "cut", index_N, num_cuts_N)
        cut_NK = length_NK - self._config.prediction_length - distance_N[:, None]
        steps_NK = np.where(present_NK, np.minimum(cut_NK, self._config.context_length), 0)
        return Samples(
            first=first,
            source_N=source_N,
            num_rows_N=rows_NK.sum(axis=1),
            length_N=steps_NK.max(axis=1),
            offsets_N=np.concatenate([[0], np.cumsum(present_NK.sum(axis=1))]),
            item_M=item_NK[present_NK],
            cut_M=cut_NK[present_NK],
        )

    def _add_members(self, choice: _SeriesChoice, index_N: np.ndarray, item_NK: np.ndarray) -> None:
        """Give some samples more series, distinct ones, by Floyd's algorithm (Bentley and Floyd 1987)."""
        group = self._config.group
        num_others = len(choice.univariate) - 1
        if num_others < 1 or not len(index_N):
            return
        first_N = np.searchsorted(choice.univariate, item_NK[:, 0])
        grouped_N = self._uniform("grouped", index_N) < group.probability
        grouped_N &= choice.univariate[np.minimum(first_N, num_others)] == item_NK[:, 0]
        spread = group.max_size - group.min_size + 1
        size_N = group.min_size + integers(self._seed, self._stream, "group size", index_N, spread)
        num_more_N = np.where(grouped_N, np.minimum(size_N - 1, num_others), 0)

        other_NK = np.full((len(index_N), group.max_size - 1), -1, dtype=np.int64)
        for place in range(other_NK.shape[1]):
            last_N = num_others - num_more_N + place
            drawn_N = integers(self._seed, self._stream, f"member {place}", index_N, last_N + 1)
            taken_N = (other_NK[:, :place] == drawn_N[:, None]).any(axis=1)
            other_N = np.where(taken_N, last_N, drawn_N)
            other_NK[:, place] = np.where(place < num_more_N, other_N, -1)
        # Numbers count the univariate series without the first, so step over it.
        skipped_NK = other_NK + (other_NK >= first_N[:, None])
        item_NK[:, 1:] = np.where(other_NK >= 0, choice.univariate[np.minimum(skipped_NK, num_others)], -1)

    def _uniform(self, use: str, index_N: np.ndarray) -> np.ndarray:
        return uniform(self._seed, self._stream, use, index_N)


class _SeriesChoice:
    """Picks series of one source."""

    def __init__(self, source: Source, selection: Selection, config: DataConfig):
        items = selection.items
        self.items = items
        self.univariate = items[source.num_rows[items] == 1] if config.group.probability else items[:0]
        self.cumulative_cuts = None
        if config.series_choice == "length":
            self.cumulative_cuts = np.cumsum(selection.lengths[items] - config.min_length + 1)

    def pick(self, uniform_N: np.ndarray) -> np.ndarray:
        if self.cumulative_cuts is None:
            return self.items[(uniform_N * len(self.items)).astype(np.int64)]
        cut_N = (uniform_N * self.cumulative_cuts[-1]).astype(np.int64)
        return self.items[np.searchsorted(self.cumulative_cuts, cut_N, side="right")]


class StridedStream:
    """Draws samples i = 0, 1, ...: epoch i // W, and of its order the place i % W, for the W windows of all sources.

    A series of n steps has windows at offsets 0, stride, 2 * stride ... as far as they fit; what is left at its end is
    dropped. One too short for a whole window has one, shorter in its context. As in Time-MoE's window dataset.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        selections: Sequence[Selection],
        config: DataConfig,
        *,
        seed: int,
        stream: str = "train",
    ):
        assert config.stride is not None
        self._config = config
        self._stride = config.stride
        self._seed = seed
        self._stream = stream
        self._source_M = np.repeat(
            np.arange(len(sources), dtype=np.int32), [len(selection.items) for selection in selections]
        )
        self._item_M = np.concatenate([selection.items for selection in selections])
        self._length_M = np.concatenate([selection.lengths[selection.items] for selection in selections])
        self._rows_M = np.concatenate(
            [source.num_rows[selection.items] for source, selection in zip(sources, selections, strict=True)]
        )
        spare_M = self._length_M - (config.context_length + config.prediction_length)
        self._count_M = np.maximum(spare_M, 0) // config.stride + 1
        self._windows_up_to_M = np.cumsum(self._count_M)
        self.num_windows = int(self._windows_up_to_M[-1])
        """Windows of one epoch."""
        self.num_sample_rows = int(self._rows_M[0]) if (self._rows_M == self._rows_M[0]).all() else None
        """Rows of every sample, where all have as many."""

    def num_windows_of(self, source: int) -> int:
        """Windows of one source in one epoch."""
        return int(self._count_M[self._source_M == source].sum())

    def draw(self, first: int, count: int) -> Samples:
        """Samples first, ..., first + count - 1."""
        epoch_N, place_N = np.divmod(np.arange(first, first + count, dtype=np.int64), self.num_windows)
        window_N = permute(self._seed, self._stream, epoch_N, place_N, self.num_windows)
        series_N = np.searchsorted(self._windows_up_to_M, window_N, side="right")
        number_N = window_N - (self._windows_up_to_M[series_N] - self._count_M[series_N])
        # Only the one window of a short series would be cut later than its horizon allows.
        cut_N = np.minimum(
            number_N * self._stride + self._config.context_length,
            self._length_M[series_N] - self._config.prediction_length,
        )
        return Samples(
            first=first,
            source_N=self._source_M[series_N],
            num_rows_N=self._rows_M[series_N].astype(np.int64),
            length_N=np.minimum(cut_N, self._config.context_length),
            offsets_N=np.arange(count + 1),
            item_M=self._item_M[series_N],
            cut_M=cut_N,
        )
