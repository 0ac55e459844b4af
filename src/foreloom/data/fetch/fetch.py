"""Fetches data sets of the hub into a folder: resumable, checked, every file whole or absent."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foreloom.data.fetch.entry import FetchEntry
from foreloom.data.fetch.hub import Hub, HubRefused
from foreloom.data.fetch.listing import HubFile, Listing
from foreloom.data.fetch.plan import PlannedSet, count_sets, part_file, plan_fetch, readable_bytes
from foreloom.data.fetch.record import RECORDS, Record, read_record, unfinished_mark
from foreloom.data.formats.cache import byte_bar


@dataclass(frozen=True)
class FetchReport:
    """How a fetch went."""

    fetched: tuple[str, ...]
    """Names of the data sets that were fetched."""
    whole: tuple[str, ...]
    """Names of those that were there already."""
    failed: Mapping[str, str]
    """Name → why it is not there, as a sentence."""
    num_bytes: int
    """Bytes downloaded."""

    def lines(self) -> list[str]:
        """The report as text."""
        done = f"fetched {count_sets(len(self.fetched))} ({readable_bytes(self.num_bytes)})"
        failures = [f"not fetched: {name}: {reason}" for name, reason in self.failed.items()]
        return [f"{done}; {len(self.whole)} there already", *failures]


def fetch(
    entries: Iterable[FetchEntry],
    out: str | Path,
    *,
    overwrite: bool = False,
    hub: Hub | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> FetchReport:
    """Download what is missing of the data sets into `out`, each into its folder; `say` hears a line for each.

    Killed, it goes on where it was with the next call. A data set that the hub refuses or that arrives damaged is
    reported and the others are fetched. Raises HubUnreachable without a network, ValueError when the disk is too small
    or another process fetches into `out`, OSError when the disk does not take a file.
    """
    out = Path(out)
    hub = hub or Hub()
    with _alone(out):
        plan = plan_fetch(entries, out, overwrite=overwrite, hub=hub)
        plan.check_space()
        fetched: list[str] = []
        failed = dict(plan.refused)
        downloaded = _Count()
        for number, planned in enumerate(plan.sets, start=1):
            name = planned.entry.name
            try:
                with byte_bar(f"fetching {name}", planned.num_bytes_missing) as advance:
                    _fetch_set(planned, out, hub, downloaded.and_then(advance))
            except (HubRefused, _Damaged) as error:
                failed[name] = str(error)
                say(f"{name} failed ({number} of {len(plan.sets)}): {error}")
                continue
            fetched.append(name)
            say(f"{name} fetched ({number} of {len(plan.sets)}): {readable_bytes(planned.num_bytes)}")
    return FetchReport(tuple(fetched), plan.whole, failed, downloaded.num_bytes)


class _Damaged(ValueError):
    """A file arrived with another checksum than the hub states."""


class _Count:
    """Counts the bytes that were downloaded."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def and_then(self, advance: Callable[[int], None]) -> Callable[[int], None]:
        def count(num_bytes: int) -> None:
            self.num_bytes += num_bytes
            advance(num_bytes)

        return count


def _fetch_set(planned: PlannedSet, out: Path, hub: Hub, advance: Callable[[int], None]) -> None:
    entry, listing = planned.entry, planned.listing
    before = read_record(entry, out)
    mark = unfinished_mark(entry, out)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for local, file in planned.files.items():
        target = out / local
        if local not in planned.whole:
            _fetch_file(hub, listing, file, target, advance)
        for part in target.parent.glob(f".{target.name}.*.part"):
            part.unlink()  # of an older version
    for local in (before.files if before else {}).keys() - planned.files.keys():
        (out / local).unlink(missing_ok=True)  # the data set has it no more
    Record(entry.repo, entry.config, listing.revision, planned.files).write(entry, out)
    mark.unlink()


def _fetch_file(hub: Hub, listing: Listing, file: HubFile, target: Path, advance: Callable[[int], None]) -> None:
    part = part_file(target, file)
    was_begun = part.exists()
    try:
        if not was_begun or part.stat().st_size < file.num_bytes:
            hub.append(listing, file, part, advance)
        if part.stat().st_size == file.num_bytes and file.checksum.fits(part):
            os.replace(part, target)
            return
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = str(target)
        raise
    part.unlink()
    if was_begun:  # its beginning may have been at fault
        _fetch_file(hub, listing, file, target, advance)
        return
    raise _Damaged(
        f"{file.path} of {listing.repo} arrived damaged: its checksum is not the one that {hub.endpoint} states. Fetch "
        "again; if it stays so, the mirror or a proxy on the way alters files."
    )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One fetch at a time in a data root: two would append to the same parts."""
    lock = out / RECORDS / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{out}: another process is fetching into this folder. Wait for it, then go on.") from None
        yield
