"""Global batches of windows, the same on every world size, each rank reading its own share.

Axes: N samples of one global batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from foreloom.data.dropping import Dropping
from foreloom.data.mixture import DataConfig
from foreloom.data.normalization import SeriesScales
from foreloom.data.plan import plan_micro_batches
from foreloom.data.quarantine import read_quarantine
from foreloom.data.read_ahead import ReadAhead
from foreloom.data.reader import open_source
from foreloom.data.selection import select
from foreloom.data.series import Source
from foreloom.data.stream import Samples, SampleStream
from foreloom.data.strided import StridedStream, count_batches
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


class Member(NamedTuple):
    """One series of one sample of a global batch."""

    sample: int
    """Index in the stream."""
    source: Source
    item: int
    """Row in its source."""
    cut: int
    """First step of the horizon."""


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
    num_quarantined: int = 0


class LoaderCounts(NamedTuple):
    """What a loader has done since it was made: differences of two say what it did in between."""

    num_built: int
    """Batches made."""
    build_seconds: float
    """Spent making them, in the background where they are read ahead."""
    num_taken: int
    """Batches handed out by a background reader."""
    num_ready_when_taken: int
    """Summed over those: batches that lay ready, the one handed out among them."""
    num_ready: int
    """Batches that lie ready now."""


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
        self.config = config
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._rank = rank
        self._world_size = world_size
        self.sources = [open_source(one.path) for one in config.sources] if sources is None else list(sources)
        """As the mixture has them."""
        self._quarantined = (
            read_quarantine(config.quarantine, self.sources)
            if config.quarantine
            else [np.array([], dtype=np.int64)] * len(self.sources)
        )
        self._selections = [
            select(source, config.min_length, one.max_series, one.holdout, quarantined)
            for source, one, quarantined in zip(self.sources, config.sources, self._quarantined, strict=True)
        ]
        kind = SampleStream if config.stride is None else StridedStream
        self._stream = kind(self.sources, self._selections, config, seed=seed, stream=stream)
        self._series_scales = None
        if config.normalization_scope == "series":
            lengths = [selection.lengths for selection in self._selections]
            self._series_scales = SeriesScales(self.sources, lengths, config.normalization)
        self._dropping = Dropping(config.drop_values, seed, stream) if config.drop_values else None
        self._fingerprint = _fingerprint(self.sources, config, seed, stream, self._quarantined)
        self._next_sample = 0
        self._ahead: list[ReadAhead[StepBatch]] = []
        self._num_built, self._build_seconds = 0, 0.0

    def batch(self, first_sample: int) -> StepBatch:
        """The global batch that starts at a sample: a pure function, whatever was read before."""
        samples, count = self._draw(first_sample)
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
            num_rows=int(samples.num_rows_N[:count].sum()),
            micro_batches=[
                self._gather(samples, positions)
                if len(positions)
                else self._gather(samples, np.array([shortest])).masked()
                for positions in plan[self._rank]
            ],
        )

    def next_sample(self, first_sample: int) -> int:
        """Where the global batch after the one that starts at a sample starts; nothing is read for it."""
        return first_sample + self._draw(first_sample)[1]

    def members(self, first_sample: int) -> list[Member]:
        """The series of all samples of that global batch, in stream order, of all ranks."""
        samples, count = self._draw(first_sample)
        return [
            Member(
                first_sample + n,
                self.sources[samples.source_N[n]],
                int(samples.item_M[member]),
                int(samples.cut_M[member]),
            )
            for n in range(count)
            for member in range(samples.offsets_N[n], samples.offsets_N[n + 1])
        ]

    @property
    def num_windows(self) -> int | None:
        """Windows of one epoch over all sources; None where they are drawn without end (no `data.stride`)."""
        return self._stream.num_windows if isinstance(self._stream, StridedStream) else None

    @cached_property
    def num_epoch_batches(self) -> float | None:
        """Global batches of the first epoch, the last one by the share of it that is filled; None as `num_windows`.

        Fewer than rows / `batch_size`: the samples of a batch, never split, may have more rows than that together.
        """
        if not isinstance(self._stream, StridedStream):
            return None
        if (num_rows := self._stream.num_sample_rows) is not None:
            return self._stream.num_windows / -(-self._batch_size // num_rows)
        return count_batches(self._stream, self._batch_size)

    def __iter__(self) -> Iterator[StepBatch]:
        batches = self._batches(self._next_sample)
        ahead = ReadAhead(batches, self.config.num_prefetch) if self.config.num_prefetch else None
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
                "The data are not those this run was stopped with: a file, the mixture, the quarantine, a window "
                f"length or the seed has changed (fingerprint {state['fingerprint']}, now {self._fingerprint}). "
                "Restore them to go on in the same order, or start a new run."
            )
        self._next_sample = int(state["next_sample"])

    def source_statistics(self) -> list[SourceStatistics]:
        """Each source of the mixture, in the recipe's order."""
        stream = self._stream
        num_windows: list[int | None] = [None] * len(self.sources)
        shares = np.array([one.weight for one in self.config.sources])
        if isinstance(stream, StridedStream):
            num_windows = [stream.num_windows_of(number) for number in range(len(self.sources))]
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
                num_quarantined=len(quarantined),
            )
            for source, selection, probability, count, quarantined in zip(
                self.sources, self._selections, shares / shares.sum(), num_windows, self._quarantined, strict=True
            )
        ]

    @property
    def queue_depth(self) -> int:
        """Most batches read ahead; 0: none are."""
        return self.config.num_prefetch

    def counts(self) -> LoaderCounts:
        """Of the iterator in use: a loader has one at a time."""
        ahead = self._ahead[-1] if self._ahead else None
        return LoaderCounts(
            num_built=self._num_built,
            build_seconds=self._build_seconds,
            num_taken=ahead.num_taken if ahead else 0,
            num_ready_when_taken=ahead.num_ready_when_taken if ahead else 0,
            num_ready=ahead.num_ready if ahead else 0,
        )

    def close(self) -> None:
        """Stop reading ahead; iterators end."""
        for ahead in list(self._ahead):
            ahead.close()

    def _batches(self, first_sample: int) -> Iterator[StepBatch]:
        while True:
            began = time.perf_counter()
            batch = self.batch(first_sample)
            self._build_seconds += time.perf_counter() - began
            self._num_built += 1
            yield batch
            first_sample = batch.next_sample

    def _draw(self, first_sample: int) -> tuple[Samples, int]:
        """Samples from one on, and how many of them fill the global batch."""
        # A sample has one row at least, so `batch_size` samples are enough.
        samples = self._stream.draw(first_sample, self._batch_size)
        return samples, int(np.searchsorted(np.cumsum(samples.num_rows_N), self._batch_size)) + 1

    def _gather(self, samples: Samples, positions: np.ndarray) -> Windows:
        return gather(
            self.sources,
            samples,
            positions,
            context_length=self.config.context_length,
            prediction_length=self.config.prediction_length,
            allow_missing=self.config.allow_missing,
            normalization=self.config.normalization,
            series_scales=self._series_scales,
            dropping=self._dropping,
        )


def _fingerprint(
    sources: Sequence[Source], config: DataConfig, seed: int, stream: str, quarantined: Sequence[np.ndarray]
) -> str:
    """Of all that decides what sample i is. Paths do not, nor does reading ahead."""
    described = replace(
        config,
        num_prefetch=0,
        sources=tuple(
            replace(one, path=source.fingerprint) for one, source in zip(config.sources, sources, strict=True)
        ),
    )
    left_out = [items.tolist() for items in quarantined]
    more = f"|{left_out}" if any(left_out) else ""
    more += f"|drop {config.drop_values}" if config.drop_values else ""
    return blake2b(f"{described}|{seed}|{stream}{more}".encode(), digest_size=16).hexdigest()
