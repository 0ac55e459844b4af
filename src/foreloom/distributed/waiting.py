"""What a rank waits for: said where it takes long, with the ranks that have not come and where they stand instead."""

from __future__ import annotations

import faulthandler
import json
import sys
import threading
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch.distributed as dist

PATIENCE_SECONDS = 30.0
"""A rank that waits longer says so, once a wait."""
BEAT_SECONDS = 1.0
"""How often a rank looks at what it waits for, and whether it is asked where it stands."""
_BEATS_TO_ANSWER = 4
"""Beats after which a rank that is there has answered."""
_NUM_CALLS = 6
_DEAF_SECONDS = 60.0
"""A rank in which Python itself stands still, and so no question is heard, prints where after so long."""

_watch: Watch | None = None


@contextmanager
def waiting(what: str) -> Generator[None]:
    """Surrounds what this rank cannot do without the others. All ranks enter the same ones in the same order.

    What a thread beside training waits for holds nothing up, and is not watched.
    """
    if _watch is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _watch.begin(what)
    try:
        yield
    finally:
        _watch.since = None


@contextmanager
def said_if_long(sentence: str) -> Generator[None]:
    """Surrounds a wait in which no rank can be asked yet: the sentence is told once it takes long."""

    def tell() -> None:
        waited = f"has waited {PATIENCE_SECONDS:.0f} s"
        print(f"warning: {sentence.format(waited=waited)}", file=sys.stderr, flush=True)

    timer = threading.Timer(PATIENCE_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Absent(NamedTuple):
    """Ranks that did not come to what another waits for, none where that cannot be told."""

    ranks: tuple[int, ...] = ()
    stands: str = ""
    """Where the first of them is, innermost call last; empty where it does not answer."""

    @property
    def in_words(self) -> str:
        return f"rank{'s' if len(self.ranks) > 1 else ''} {', '.join(map(str, self.ranks))}"


class Watch(threading.Thread):
    """Looks at what this rank waits for, and answers through `store` when another asks where it stands."""

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        super().__init__(name="foreloom-watch", daemon=True)
        self.since: float | None = None
        # A main thread that waits for a key keeps others from the store it uses.
        self._store = store.clone()  # type: ignore[attr-defined]
        self._rank, self._world_size = rank, world_size
        self._number, self._what = 0, ""
        self._watched = threading.get_ident()
        self._has_ended = threading.Event()
        global _watch
        _watch = self
        self.start()

    def begin(self, what: str) -> None:
        """A wait begins."""
        self._what = what
        self._number += 1
        self.since = time.monotonic()

    def end(self) -> None:
        """No more is watched, and nobody is to wait for an answer."""
        global _watch
        _watch = None
        self._has_ended.set()
        with suppress(RuntimeError):  # the store is gone
            self._store.set(f"left/{self._rank}", "")

    def run(self) -> None:
        told, answered = 0, 0
        while True:
            faulthandler.dump_traceback_later(_DEAF_SECONDS)
            if self._has_ended.wait(BEAT_SECONDS):
                faulthandler.cancel_dump_traceback_later()
                return
            number, since = self._number, self.since
            try:
                if (asked := self._store.add("asked", 0)) > answered:
                    self._store.set(f"stands/{asked}/{self._rank}", json.dumps([number, self._stack()]))
                    answered = asked
                if since and time.monotonic() - since > PATIENCE_SECONDS and told < number:
                    self._tell(number)
                    told = number
            except RuntimeError:  # the store is gone, and with it the rank that kept it: this rank will soon know
                return

    def who_is_absent(self) -> Absent:
        """Which ranks are to blame for the newest wait, which has failed: those that do not answer, or else have not
        come. Takes seconds where one does not answer; ranks that have left after an error are not to blame. Raises
        RuntimeError where the store is gone."""
        return self._absent(self._number)

    def _tell(self, number: int) -> None:
        """One rank says it for all."""
        me = str(self._rank)
        if self._store.compare_set(f"tells/{number}", "", me).decode() != me:
            return
        absent = self._absent(number, self._stack())
        if not absent.ranks or self._number != number or self.since is None:
            return
        waited = f"rank {me} has waited {time.monotonic() - self.since:.0f} s for {absent.in_words} ({self._what})"
        where = f"Rank {absent.ranks[0]} does not answer: it is stopped, or gone."
        if absent.stands:
            where = f"Rank {absent.ranks[0]} stands here, innermost call last:\n{absent.stands}"
        sentence = f"warning: {waited}; parallel.timeout_minutes says when it gives up. {where}"
        print(sentence, file=sys.stderr, flush=True)

    def _absent(self, number: int, stack: str = "") -> Absent:
        """Ranks that do not answer, else those that have not come to the wait of this number, else those that have and
        stand elsewhere than at `stack`."""
        question, answers = self._store.add("asked", 1), dict[int, tuple[int, str]]()
        unknown = set(range(self._world_size)) - {self._rank}
        deadline = time.monotonic() + _BEATS_TO_ANSWER * BEAT_SECONDS
        while unknown and time.monotonic() < deadline:
            time.sleep(BEAT_SECONDS / 10)
            for rank in sorted(unknown):
                if self._store.check([key := f"stands/{question}/{rank}"]):
                    answers[rank] = json.loads(self._store.get(key))
                    unknown.discard(rank)
                elif self._store.check([f"left/{rank}"]):
                    unknown.discard(rank)
        late = [rank for rank, (at, _) in answers.items() if at < number]
        elsewhere = [rank for rank, (_, where) in answers.items() if stack and where != stack]
        ranks = sorted(unknown or late or elsewhere)
        return Absent(tuple(ranks), answers[ranks[0]][1]) if ranks and not unknown else Absent(tuple(ranks))

    def _stack(self) -> str:
        """The innermost calls of what is watched."""
        frame = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame)[-_NUM_CALLS:]) if frame else ""
