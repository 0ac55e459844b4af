"""Global batches of windows, the same on every world size, each rank reading its own share.

Axes: N samples of one global batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from foreloom.data.mixture import DataConfig
from foreloom.data.normalization import SeriesScales
from foreloom.data.plan import plan_micro_batches
from foreloom.data.read_ahead import ReadAhead
from foreloom.data.reader import open_source
from foreloom.data.selection import select
from foreloom.data.series import Source
from foreloom.data.stream import Samples, SampleStream
from foreloom.data.strided import StridedStream
from foreloom.data.windows import Windows, gather


@dataclass(frozen=True)
class StepBatch:
    """One rank's share of one global batch."""

    first_sample: int
    """Stream index of the global batch's first sample."""
    next_sample: int
    """Stream index after its last sample: where the next batch begins."""
    num_rows: int
    """Rows of the global batch."""
    micro_batches: list[Windows]
    """This rank's, as many on every rank. One that only fills up the number is `Windows.masked()`."""

    @property
    def samples(self) -> np.ndarray:
        """Stream indices this rank reads, sorted; the ranks' sets are disjoint."""
        found = np.unique(np.concatenate([windows.sample_R for windows in self.micro_batches]))
        return found[found >= 0]


@dataclass(frozen=True)
class SourceStatistics:
    """One source of the mixture."""

    name: str
    probability: float
    num_series: int
    num_short: int
    """Left out: shorter than min_past + prediction_length."""
    num_drawn: int
    """Series the stream draws from."""
    num_bytes: int
    """Mapped from disk."""
    num_windows: int | None = None
    """Windows of one epoch; None where they are drawn without end."""


class WindowLoader:
    """Iterates over `StepBatch`es without end, from where it stands.

    A global batch takes samples in stream order until their rows reach `batch_size`. `sources` replaces the opened
    `config.sources` (a test, series in memory), in the same order.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        seed: int,
        batch_size: int,
        micro_batch_size: int = 0,
        rank: int = 0,
        world_size: int = 1,
        stream: str = "train",
        sources: Sequence[Source] | None = None,
    ):
        assert 0 <= rank < world_size and batch_size > 0
        self._config = config
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._rank = rank
        self._world_size = world_size
        self._sources = [open_source(one.path) for one in config.sources] if sources is None else list(sources)
        self._selections = [
            select(source, config.min_length, one.max_series, one.holdout)
            for source, one in zip(self._sources, config.sources, strict=True)
        ]
        kind = SampleStream if config.stride is None else StridedStream
        self._stream = kind(self._sources, self._selections, config, seed=seed, stream=stream)
        self._series_scales = None
        if config.normalization_scope == "series":
            lengths = [selection.lengths for selection in self._selections]
            self._series_scales = SeriesScales(self._sources, lengths, config.normalization)
        self._fingerprint = _fingerprint(self._sources, config, seed, stream)
        self._next_sample = 0
        self._ahead: list[ReadAhead[StepBatch]] = []

    def batch(self, first_sample: int) -> StepBatch:
        """The global batch that starts at a sample: a pure function, whatever was read before."""
        # A sample has one row at least, so `batch_size` samples are enough.
        samples = self._stream.draw(first_sample, self._batch_size)
        rows_after_N = np.cumsum(samples.num_rows_N)
        count = int(np.searchsorted(rows_after_N, self._batch_size)) + 1
        plan = plan_micro_batches(
            samples.num_rows_N[:count],
            samples.num_steps_N[:count],
            world_size=self._world_size,
            micro_batch_size=self._micro_batch_size,
        )
        shortest = int(np.argmin(samples.num_steps_N[:count]))
        return StepBatch(
            first_sample=first_sample,
            next_sample=first_sample + count,
            num_rows=int(rows_after_N[count - 1]),
            micro_batches=[
                self._gather(samples, positions)
                if len(positions)
                else self._gather(samples, np.array([shortest])).masked()
                for positions in plan[self._rank]
            ],
        )

    @property
    def num_windows(self) -> int | None:
        """Windows of one epoch over all sources; None where they are drawn without end (no `data.stride`)."""
        return self._stream.num_windows if isinstance(self._stream, StridedStream) else None

    @property
    def num_epoch_rows(self) -> int | None:
        """Rows of those windows, what `batch_size` counts: more than windows where series have several variates."""
        return self._stream.num_rows if isinstance(self._stream, StridedStream) else None

    def __iter__(self) -> Iterator[StepBatch]:
        batches = self._batches(self._next_sample)
        ahead = ReadAhead(batches, self._config.num_prefetch) if self._config.num_prefetch else None
        if ahead is not None:
            self._ahead.append(ahead)
        try:
            while True:
                batch = next(ahead or batches, None)
                if batch is None:
                    return
                self._next_sample = batch.next_sample
                yield batch
        finally:
            if ahead is not None:
                ahead.close()
                self._ahead.remove(ahead)

    def state_dict(self) -> dict[str, Any]:
        """Position after the batch last handed out, and what the data are."""
        return {"next_sample": self._next_sample, "fingerprint": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any], *, allow_other_data: bool = False) -> None:
        """Go on from a position; the next iterator starts there. Another world or batch size is fine."""
        if state["fingerprint"] != self._fingerprint and not allow_other_data:
            raise ValueError(
                "The data are not those this run was stopped with: a file, the mixture, a window length or the seed "
                f"has changed (fingerprint {state['fingerprint']}, now {self._fingerprint}). Restore them to go on in "
                "the same order, or start a new run."
            )
        self._next_sample = int(state["next_sample"])

    def source_statistics(self) -> list[SourceStatistics]:
        """Each source of the mixture, in the recipe's order."""
        stream = self._stream
        num_windows: list[int | None] = [None] * len(self._sources)
        shares = np.array([one.weight for one in self._config.sources])
        if isinstance(stream, StridedStream):
            num_windows = [stream.num_windows_of(number) for number in range(len(self._sources))]
            shares = np.array(num_windows)
        return [
            SourceStatistics(
                name=source.name,
                probability=float(probability),
                num_series=len(source),
                num_short=selection.num_short,
                num_drawn=len(selection.items),
                num_bytes=source.num_bytes,
                num_windows=count,
            )
            for source, selection, probability, count in zip(
                self._sources, self._selections, shares / shares.sum(), num_windows, strict=True
            )
        ]

    def close(self) -> None:
        """Stop reading ahead; iterators end."""
        for ahead in list(self._ahead):
            ahead.close()

    def _batches(self, first_sample: int) -> Iterator[StepBatch]:
        while True:
            batch = self.batch(first_sample)
            yield batch
            first_sample = batch.next_sample

    def _gather(self, samples: Samples, positions: np.ndarray) -> Windows:
        return gather(
            self._sources,
            samples,
            positions,
            context_length=self._config.context_length,
            prediction_length=self._config.prediction_length,
            allow_missing=self._config.allow_missing,
            normalization=self._config.normalization,
            series_scales=self._series_scales,
        )


def _fingerprint(sources: Sequence[Source], config: DataConfig, seed: int, stream: str) -> str:
    """Of all that decides what sample i is. Paths do not, nor does reading ahead."""
    described = replace(
        config,
        num_prefetch=0,
        sources=tuple(
            replace(one, path=source.fingerprint) for one, source in zip(config.sources, sources, strict=True)
        ),
    )
    return blake2b(f"{described}|{seed}|{stream}".encode(), digest_size=16).hexdigest()
