"""What a fetch would do: which files are missing, how many bytes that is, and what the hub does not give."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from foreloom.data.fetch.entry import FetchEntry
from foreloom.data.fetch.hub import Hub, HubRefused
from foreloom.data.fetch.listing import HubFile, Listing
from foreloom.data.fetch.record import read_record, unfinished_mark


@dataclass(frozen=True)
class PlannedSet:
    """A data set to fetch."""

    entry: FetchEntry
    listing: Listing
    files: Mapping[str, HubFile]
    """All its files, by their path below the data root."""
    whole: frozenset[str]
    """Those of them that are there."""
    num_begun: Mapping[str, int]
    """Bytes that an earlier fetch, cut off, left of the others."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())

    @property
    def num_bytes_missing(self) -> int:
        missing = sum(file.num_bytes for local, file in self.files.items() if local not in self.whole)
        return missing - sum(self.num_begun.values())


@dataclass(frozen=True)
class FetchPlan:
    """What is to be fetched into a data root."""

    out: Path
    sets: tuple[PlannedSet, ...]
    whole: tuple[str, ...]
    """Names of the data sets that are there, every file of its recorded size."""
    refused: Mapping[str, str]
    """Name → why the hub does not give it, as a sentence."""

    @property
    def num_bytes_missing(self) -> int:
        return sum(planned.num_bytes_missing for planned in self.sets)

    def check_space(self) -> None:
        """Raise ValueError when the disk of the data root cannot hold what is missing."""
        free = free_bytes(self.out)
        if self.num_bytes_missing > free:
            raise ValueError(
                f"{self.out}: {readable_bytes(self.num_bytes_missing)} are to be fetched, but only "
                f"{readable_bytes(free)} are free there. Free some space, choose another --out, or fetch fewer with "
                "--only."
            )

    def lines(self) -> list[str]:
        """The plan as text, for `--dry-run`."""
        lines = [
            f"to fetch into {self.out}: {count_sets(len(self.sets))}, {readable_bytes(self.num_bytes_missing)} "
            f"({readable_bytes(free_bytes(self.out))} free)"
        ]
        width = max((len(planned.entry.name) for planned in self.sets), default=0)
        for planned in self.sets:
            there = planned.num_bytes - planned.num_bytes_missing
            lines.append(
                f"  {planned.entry.name:{width}}  {readable_bytes(planned.num_bytes):>8}  {planned.entry.repo}"
                + (f", {readable_bytes(there)} there already" if there else "")
            )
        if self.whole:
            lines.append(f"there already: {', '.join(self.whole)}")
        lines += [f"cannot be fetched: {name}: {reason}" for name, reason in self.refused.items()]
        return lines


def plan_fetch(entries: Iterable[FetchEntry], out: str | Path, *, overwrite: bool = False, hub: Hub) -> FetchPlan:
    """Compare a data root with the hub; nothing is written.

    A data set that was fetched before and has all its files is whole, and the hub is not asked about it; a file that
    lies there without a record is whole if its checksum is the hub's. `overwrite` takes everything as missing but what
    an earlier fetch of the same file has begun. Raises HubUnreachable, and ValueError for a damaged record.
    """
    out = Path(out)
    listings: dict[str, Listing | HubRefused] = {}
    sets, whole, refused = [], [], {}
    for entry in entries:
        record = None if overwrite else read_record(entry, out)
        if record is not None and record.has_all_files(out) and not unfinished_mark(entry, out).exists():
            whole.append(entry.name)
            continue
        if entry.repo not in listings:
            listings[entry.repo] = _list(hub, entry.repo)
        listing = listings[entry.repo]
        try:
            if isinstance(listing, HubRefused):
                raise listing
            files = listing.select(entry)
        except ValueError as reason:
            refused[entry.name] = str(reason)
            continue
        kept = frozenset(local for local, file in files.items() if not overwrite and _is_whole(out / local, file))
        begun = {local: _num_begun(out / local, file) for local, file in files.items() if local not in kept}
        sets.append(PlannedSet(entry, listing, files, kept, begun))
    return FetchPlan(out, tuple(sets), tuple(whole), refused)


def part_file(target: Path, file: HubFile) -> Path:
    """Where the beginning of a file is kept until it is whole. Its name tells the content, so that parts of an older
    version are never continued."""
    return target.with_name(f".{target.name}.{file.checksum.digest[:16]}.part")


def count_sets(number: int) -> str:
    """1 data set, 2 data sets."""
    return f"{number} data set{'' if number == 1 else 's'}"


def readable_bytes(num_bytes: int) -> str:
    """1234567 as 1.2 MB, in powers of 1000 as the hub shows them."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk that holds a folder, which need not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _list(hub: Hub, repo: str) -> Listing | HubRefused:
    """One answer a repository: many data sets share it."""
    try:
        return hub.listing(repo)
    except HubRefused as refused:
        return refused


def _is_whole(target: Path, file: HubFile) -> bool:
    return target.is_file() and target.stat().st_size == file.num_bytes and file.checksum.fits(target)


def _num_begun(target: Path, file: HubFile) -> int:
    part = part_file(target, file)
    return min(part.stat().st_size, file.num_bytes) if part.exists() else 0
