"""Global batches, the same on every world size, each rank reading its own share. Knows no kind of data.

Axes: N samples of one global batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from foreloom.data.batch import Dataset, Drawn, MicroBatch, PreparesSamples

T = TypeVar("T")

_SAMPLES_AT_ONCE = 65536
_ROWS_PREPARED = 1024
"""Of a rank's coming batches, together: a process steps through time in Python, whatever the number of series."""
_MOST_SHOWN = 4


@dataclass(frozen=True)
class StepBatch:
    """One rank's share of one global batch."""

    first_sample: int
    """Stream index of the global batch's first sample."""
    next_sample: int
    """Stream index after its last sample: where the next batch begins."""
    num_rows: int
    """Rows of the global batch."""
    micro_batches: list[Any]
    """This rank's `MicroBatch`es, as many on every rank. One that only fills up the number is `masked()`."""

    @property
    def samples(self) -> np.ndarray:
        """Stream indices this rank reads, sorted; the ranks' sets are disjoint."""
        found = np.unique(np.concatenate([micro_batch.sample_R for micro_batch in self.micro_batches]))
        return found[found >= 0]


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


class BatchLoader:
    """Iterates over `StepBatch`es without end, from where it stands.

    A global batch takes samples of `dataset` in stream order until their rows reach `batch_size`; a sample is never
    split. `micro_batch_size` is the most rows of a micro-batch (0: a rank's whole share). `num_prefetch` global batches
    are made ahead in the background (0: none). What `batch` gives is a pure function of `dataset` and the sample it
    begins with, so the state is one number.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        micro_batch_size: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_prefetch: int = 2,
    ):
        assert 0 <= rank < world_size and batch_size > 0
        self.dataset = dataset
        self.num_prefetch = num_prefetch
        self._batch_size = batch_size
        self._micro_batch_size = self._asked_size = micro_batch_size
        self._rank = rank
        self._world_size = world_size
        self._next_sample = 0
        self._ahead: list[ReadAhead[StepBatch]] = []
        self._num_built, self._build_seconds = 0, 0.0

    def batch(self, first_sample: int) -> StepBatch:
        """The global batch that starts at a sample: a pure function, whatever was read before."""
        drawn, count, own = self._planned(first_sample)
        return StepBatch(
            first_sample=first_sample,
            next_sample=first_sample + count,
            num_rows=int(drawn.num_rows_N[:count].sum()),
            micro_batches=[
                self.dataset.gather(drawn, positions)
                if len(positions)
                else self.dataset.gather(drawn, np.array([int(np.argmin(drawn.length_N[:count]))])).masked()
                for positions in own
            ],
        )

    def next_sample(self, first_sample: int) -> int:
        """Where the global batch after the one that starts at a sample starts; nothing is read for it."""
        return first_sample + self._draw(first_sample)[1]

    def drawn(self, first_sample: int) -> Any:
        """The samples of that global batch, of all ranks, as the dataset drew them."""
        return self.dataset.draw(first_sample, self._draw(first_sample)[1])

    def largest(self) -> MicroBatch:
        """As large as the micro-batches of this run become."""
        share = -(-self._batch_size // self._world_size)
        return self.dataset.largest(min(self._micro_batch_size or share, share))

    def halve_micro_batches(self) -> int:
        """Make them of half as many rows, and tell of how many; 0, and all stays, where they have one. Batches that
        were read ahead are as they were: begin a new iterator."""
        rows = self._micro_batch_size or -(-self._batch_size // self._world_size)
        if rows > 1:
            self._micro_batch_size = -(-rows // 2)
        return self._micro_batch_size if rows > 1 else 0

    @property
    def halved_to(self) -> int | None:
        """Rows of a micro-batch where they are fewer than was asked; None where they are not."""
        return self._micro_batch_size if self._micro_batch_size != self._asked_size else None

    @property
    def accumulates(self) -> bool:
        """Has a rank several micro-batches a step?"""
        return 0 < self._micro_batch_size < -(-self._batch_size // self._world_size)

    @cached_property
    def num_epoch_batches(self) -> float | None:
        """Global batches of the first epoch, the last one by the share of it that is filled; None where the stream has
        no end.

        Fewer than rows / `batch_size`: the samples of a batch, never split, may have more rows than that together.
        """
        if self.dataset.num_epoch_samples is None:
            return None
        if (num_rows := self.dataset.num_sample_rows) is not None:
            return self.dataset.num_epoch_samples / -(-self._batch_size // num_rows)
        return _count_batches(self.dataset, self.dataset.num_epoch_samples, self._batch_size)

    def __iter__(self) -> Generator[StepBatch, None, None]:
        batches = self._batches(self._next_sample)
        ahead = ReadAhead(batches, self.num_prefetch) if self.num_prefetch else None
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
        """Position after the batch last handed out, what the data are, and to what micro-batches were halved."""
        halved = {"halved": {"from": self._asked_size, "to": self.halved_to}} if self.halved_to else {}
        return {
            "next_sample": self._next_sample,
            "fingerprint": self.dataset.fingerprint,
            "made_of": dict(self.dataset.made_of),
        } | halved

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position; the next iterator starts there. Another world or batch size is fine. Micro-batches
        stay halved where as large ones are asked for as then."""
        if state["fingerprint"] != self.dataset.fingerprint:
            raise ValueError(
                "The data are not those this run was stopped with: "
                f"{_differences(state.get('made_of', {}), self.dataset.made_of)}. "
                "Restore them to go on in the same order, or start a new run."
            )
        self._next_sample = int(state["next_sample"])
        if (halved := state.get("halved")) and halved["from"] == self._asked_size:
            self._micro_batch_size = halved["to"]

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
        num_prepared = 0
        while True:
            began = time.perf_counter()
            num_prepared = (num_prepared or self._prepare(first_sample)) - 1
            batch = self.batch(first_sample)
            self._build_seconds += time.perf_counter() - began
            self._num_built += 1
            yield batch
            first_sample = batch.next_sample

    def _prepare(self, first_sample: int) -> int:
        """Tell the dataset, where it wants to know, what this rank gathers for the batches from a sample on; of how
        many batches."""
        if not isinstance(self.dataset, PreparesSamples):
            return 1
        parts = []
        for _ in range(max(_ROWS_PREPARED * self._world_size // self._batch_size, 1)):
            drawn, count, own = self._planned(first_sample)
            parts.append((drawn, np.concatenate(own)))
            first_sample += count
        self.dataset.prepare(parts)
        return len(parts)

    def _planned(self, first_sample: int) -> tuple[Drawn, int, list[np.ndarray]]:
        """Samples from one on, how many of them fill the global batch, and which of those each of this rank's
        micro-batches has."""
        drawn, count = self._draw(first_sample)
        plan = plan_micro_batches(
            drawn.num_rows_N[:count],
            drawn.length_N[:count],
            world_size=self._world_size,
            micro_batch_size=self._micro_batch_size,
        )
        return drawn, count, plan[self._rank]

    def _draw(self, first_sample: int) -> tuple[Drawn, int]:
        """Samples from one on, and how many of them fill the global batch."""
        # A sample has one row at least, so `batch_size` samples are enough.
        drawn = self.dataset.draw(first_sample, self._batch_size)
        return drawn, int(np.searchsorted(np.cumsum(drawn.num_rows_N), self._batch_size)) + 1


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What of the parts of a fingerprint has changed, the first few of them."""
    absent = "absent"
    changed = [
        f"{name} was {before.get(name, absent)}, is {now.get(name, absent)}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    if not before or not changed:
        return "a file, the mixture, what is excluded, a setting of data or the seed has changed"
    more = f"; {len(changed) - _MOST_SHOWN} more" if len(changed) > _MOST_SHOWN else ""
    return "; ".join(changed[:_MOST_SHOWN]) + more


def _count_batches(dataset: Dataset, num_samples: int, batch_size: int) -> float:
    """How often the first samples, in their order, make up `batch_size` rows; and what share is left."""
    num_batches = first = 0
    while True:
        rows_after_N = np.cumsum(dataset.draw(first, max(batch_size, _SAMPLES_AT_ONCE)).num_rows_N)
        rows_before = count = 0
        while rows_after_N[-1] >= rows_before + batch_size:
            begin, count = count, int(np.searchsorted(rows_after_N, rows_before + batch_size)) + 1
            if first + count >= num_samples:
                return num_batches + (num_samples - first - begin) / (count - begin)
            num_batches += 1
            rows_before = int(rows_after_N[count - 1])
        first += count


def plan_micro_batches(
    num_rows_N: np.ndarray, length_N: np.ndarray, *, world_size: int, micro_batch_size: int = 0
) -> list[list[np.ndarray]]:
    """Positions of the samples of each micro-batch, as plan[rank][micro_step].

    Samples are sorted by length and cut into `world_size` x k consecutive bins, k as small as
    `micro_batch_size` rows allow (0: no limit, k = 1); among such cuts the one is taken whose largest padded area (rows
    x longest length) is least. Bins next to each other run at the same time, so ranks wait little for one another.
    A sample is never split; one with more rows than the budget gets a bin of its own. Every rank has k micro-batches,
    the last may be empty.
    """
    order_N = np.argsort(-length_N, kind="stable")
    rows_before = np.concatenate([[0], np.cumsum(num_rows_N[order_N])])
    steps = length_N[order_N]
    budget = micro_batch_size or int(rows_before[-1])

    num_micro_steps = -(-len(_cut(rows_before, steps, budget, np.inf)) // world_size)
    num_bins = num_micro_steps * world_size
    low = int(num_rows_N @ length_N) // num_bins
    high = int(rows_before[-1] * max(int(steps[0]), 1))
    while low < high:
        middle = (low + high) // 2
        if len(_cut(rows_before, steps, budget, middle)) <= num_bins:
            high = middle
        else:
            low = middle + 1
    ends = _cut(rows_before, steps, budget, low)
    bins = [np.sort(chunk) for chunk in np.split(order_N, ends[:-1])]
    bins += [order_N[:0]] * (num_bins - len(bins))
    return [bins[rank::world_size] for rank in range(world_size)]


def _cut(rows_before: np.ndarray, steps: np.ndarray, budget: int, area: float) -> list[int]:
    """Ends of consecutive bins, each filled as far as both limits allow, with one sample at least."""
    ends: list[int] = []
    begin = 0
    while begin < len(steps):
        rows = min(budget, area // max(int(steps[begin]), 1))
        end = int(np.searchsorted(rows_before, rows_before[begin] + rows, side="right")) - 1
        begin = max(end, begin + 1)
        ends.append(begin)
    return ends


class ReadAhead(Generic[T]):
    """Iterates over `items`, at most `depth` of them made before they are asked for.

    An exception in the thread is raised, as it is, where the item would have been handed out. `close` stops the thread
    and waits for it; it may be called from any thread and more than once.
    """

    def __init__(self, items: Iterator[T], depth: int):
        assert depth >= 1
        self._items = items
        self._depth = depth
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._finished = False
        self._closed = False
        self.num_taken = 0
        """Items handed out."""
        self.num_ready_when_taken = 0
        """Summed over those: items that lay ready, the one handed out among them."""
        # A daemon, so that a run that dies without closing its loader still ends.
        self._thread = threading.Thread(target=self._work, name="foreloom-read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            num_ready = len(self._ready)
            self._changed.wait_for(lambda: self._ready or self._finished or self._closed)
            if self._closed:
                raise StopIteration
            if self._ready:
                item = self._ready.popleft()
                self.num_taken += 1
                self.num_ready_when_taken += num_ready
                self._changed.notify_all()
                return item
        if self._failure is not None:
            raise self._failure
        raise StopIteration

    @property
    def num_ready(self) -> int:
        """Items that lie ready."""
        return len(self._ready)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
                item = next(self._items, self)
                with self._changed:
                    if item is self:
                        return
                    self._ready.append(item)  # type: ignore[arg-type]
                    self._changed.notify_all()
        except Exception as failure:  # whatever it is, it belongs to the reader of the items
            self._failure = failure
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()
