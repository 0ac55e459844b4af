"""The strided stream: the windows of every series a fixed number of steps apart, each once an epoch.

Axes: N samples, M series (the usable ones of all sources).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foreloom.data.mixture import DataConfig
from foreloom.data.permutation import permute
from foreloom.data.selection import Selection
from foreloom.data.series import Source
from foreloom.data.stream import Samples


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
        self.num_rows = int(self._count_M @ self._rows_M)
        """Rows of one epoch."""

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
            num_steps_N=np.minimum(cut_N, self._config.context_length),
            offsets_N=np.arange(count + 1),
            item_M=self._item_M[series_N],
            cut_M=cut_N,
        )
