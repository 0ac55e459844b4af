"""What the loader, the trainer and a model family agree on, whatever the data are: series, text, streams.

Axes: R rows of a micro-batch, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np


class MicroBatch(Protocol):
    """Rows that go through a model together, on one device. A family's `batch` turns them into tensors."""

    sample_R: np.ndarray
    """int64, each row's sample: its index in the stream. -1 where a row only fills up, and of held-out data."""

    @property
    def num_rows(self) -> int: ...

    @property
    def size(self) -> str:
        """For people: `64 rows with 512 context and 64 future steps`."""
        ...

    def masked(self) -> Self:
        """The same shapes, and nothing in them that counts in a loss: something to run that changes nothing."""
        ...


class Drawn(Protocol):
    """N consecutive samples of the stream, decided on and not yet read."""

    first: int
    """Stream index of the first."""
    num_rows_N: np.ndarray
    """int64, rows of each sample. They are never split."""
    length_N: np.ndarray
    """int64, steps or tokens of a sample's longest row: samples of like length run together, padded little."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class SourceStatistics:
    """One source of the mixture."""

    name: str
    share: float
    """Of the samples."""
    num_items: int
    """Series, or documents, that samples are cut from."""
    num_bytes: int
    """Mapped from disk."""
    unit: str = "series"
    """What `num_items` counts, in the plural."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Items that samples are not cut from, by reason: `too short`, `excluded`."""
    num_epoch_samples: int | None = None
    """None where samples are drawn without end."""
    roles: str = ""
    """What is forecast and what it is forecast from, in words; empty for data that have no such roles."""


class Dataset(Protocol):
    """Samples of one run: sample i is a pure function of the seed and i. `Drawn` goes from `draw` to the others."""

    fingerprint: str
    """Changes with all that decides what sample i is: the data, the mixture, the lengths, the seed."""
    made_of: Mapping[str, str]
    """The parts of it, each by a name for people: a setting, a file."""
    num_epoch_samples: int | None
    """Samples after which the stream begins anew, in another order; None where it does not."""
    num_sample_rows: int | None
    """Rows of every sample, where all have as many."""

    def draw(self, first: int, count: int) -> Any:
        """Samples first, ..., first + count - 1, as a `Drawn`. Nothing is read."""
        ...

    def gather(self, drawn: Any, positions: np.ndarray) -> Any:
        """Those of the drawn samples as a `MicroBatch`."""
        ...

    def largest(self, num_rows: int) -> Any:
        """A `MicroBatch` as large as any of `num_rows` rows can be, or of one sample that has more: what the trainer
        tries before its first step."""
        ...

    def facts(self, drawn: Any) -> list[dict[str, Any]]:
        """What the samples were made of, for people (`foreloom data replay`): an entry each, or one for each member of
        a sample; `sample` is its index in the stream."""
        ...

    def statistics(self) -> list[SourceStatistics]:
        """Each source, in the recipe's order."""
        ...


@runtime_checkable
class PreparesSamples(Protocol):
    """A dataset that is faster when it knows beforehand what will be gathered: the more at once, the faster."""

    def prepare(self, parts: Sequence[tuple[Any, np.ndarray]]) -> None:
        """Make ready to gather these, each a `Drawn` and positions in it, in this thread, and forget earlier ones."""
        ...


class HeldOut(Protocol):
    """This rank's micro-batches of what is held out, again and again: as many on every rank."""

    @property
    def num_windows(self) -> int:
        """Of all ranks together: windows, blocks."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


@runtime_checkable
class ExplainsItself(Protocol):
    """What is held out, where it can tell people about its windows."""

    def left_out(self) -> list[str]:
        """A sentence for each window of this rank that was iterated over and counts nothing although it has values."""
        ...

    def without_windows(self) -> list[str]:
        """Each source that was to be held out from and of which no window is, with how many steps it holds out."""
        ...

    def largest_value(self, micro_batch: Any) -> str:
        """Where the largest value of a micro-batch lies, for people."""
        ...

    def why_nothing_counts(self) -> str:
        """Why no window of this rank counts in the loss, and what to do, as sentences."""
        ...


class Find(Protocol):
    """Where a path of a recipe leads."""

    def __call__(self, path: str, key: str) -> Path | None:
        """The file or folder that setting `key` means; None where it is not there."""
        ...


class Problem(NamedTuple):
    """What is wrong with a setting."""

    key: str
    """`data.sources.0.path`."""
    sentence: str
    is_missing: bool = False
    """Only something on disk is missing: no reason not to show the recipe."""


class DataSection(Protocol):
    """The recipe's `data` section; its class follows `model.family`."""

    validation: ClassVar[type]
    """The class of the recipe's `validation` section: `config.ValidationConfig`, with what is held out."""

    @property
    def num_prefetch(self) -> int:
        """Global batches read ahead."""
        ...

    def open(self, seed: int, *, batch_size: int) -> Dataset:
        """The samples of a run; a recurrent one has a stream for each row of its global batch, `batch_size` of them.

        Raises ValueError where there are none.
        """
        ...

    def full_rows(self, num_rows: int) -> Any:
        """A `MicroBatch` of rows as long as any, each for itself and nothing missing, made without reading data: what
        memory is counted by where there are none."""
        ...

    def held_out(
        self, validation: Any, dataset: Any, *, micro_batch_size: int, rank: int, world_size: int
    ) -> HeldOut | None:
        """What `validation` measures the loss on; None where it measures nothing. `dataset` is what `open` gave."""
        ...

    def find_files(self, validation: Any, find: Find) -> tuple[Self, Any, Sequence[Problem]]:
        """Both sections with every path found, as far as it is there, and the paths that lead nowhere."""
        ...

    def contradictions(self, validation: Any) -> Sequence[Problem]:
        """What the two sections say against each other."""
        ...

    def why_endless(self) -> str:
        """Why epochs cannot be counted, and what would change that; empty where they can."""
        ...

    def is_there(self) -> bool:
        """Is everything on disk that `open` needs?"""
        ...

    def in_words(self) -> Mapping[str, str]:
        """A few labels and values for the head of a run: `window: 512 context, 64 horizon`."""
        ...
