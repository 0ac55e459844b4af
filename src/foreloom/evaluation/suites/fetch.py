"""Fetches the data sets of a suite into a folder: file by file, checked, every file whole or absent.

Below the data root each data set's files lie in its folder, and a record of what they are to be in `.fetched/`, so that
no network is needed to find or verify them. A mark is set, the record is written, the files are brought, the mark goes:
so a data set is whole exactly when it has a record, every file of it, and no mark.
"""

from __future__ import annotations

import dataclasses
import difflib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from foreloom.evaluation.suites.repository import (
    HubFile,
    HubRefused,
    HubUnreachable,
    Listing,
    download,
    is_below,
    list_repository,
    readable,
)
from foreloom.evaluation.suites.suite import Suite
from foreloom.files import write_text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_RECORDS = ".fetched"
"""Folder of the records below the data root. Readers pass over names that begin with a dot."""
_UNFINISHED = ".unfinished"
"""How the name of a mark ends."""
_HELD_ELSEWHERE = {
    # The repository holds only a script, which `datasets` 4 does not run; the same table lies here as Parquet.
    ("autogluon/chronos_datasets_extra", "ETTh"): ("autogluon/fev_datasets", "ETT_1H"),
    ("autogluon/chronos_datasets_extra", "ETTm"): ("autogluon/fev_datasets", "ETT_15T"),
}


@dataclass(frozen=True)
class FetchEntry:
    """One data set of a suite. Tasks that share a data set share an entry.

    Raises ValueError for a folder that is not below the data root.
    """

    name: str
    """What users call it: `--only NAME`."""
    repo: str
    """Data set repository on the hub, `owner/name`."""
    config: str
    """A configuration of the repository's card, or one of its folders or files."""
    folder: str
    """Folder below the data root that its files go into."""

    def __post_init__(self) -> None:
        if not is_below(self.folder):
            raise ValueError(f"{self.name}: folder {self.folder!r} is not below the data root. Name a relative folder.")

    def mark(self, out: Path) -> Path:
        """The hidden folder that is there while the files beside it are not all whole, and in which they arrive."""
        return out / self.folder / f".{PurePosixPath(self.config).name}{_UNFINISHED}"

    def record(self, out: Path) -> Path:
        """The file that says which files make the data set."""
        return out / _RECORDS / self.folder / f"{PurePosixPath(self.config).name}.json"


def fetch_entries(suite: Suite) -> list[FetchEntry]:
    """The data sets of a suite, each once, in its order.

    Each gets a folder named after repository and configuration (`chronos_datasets/m4_daily`), so that suites share a
    data root: m4_daily of GIFT-Eval is another one.
    """
    entries = []
    for task in suite.tasks:
        repo, config = _HELD_ELSEWHERE.get((task.repo, task.config), (task.repo, task.config))
        place = PurePosixPath(task.config)
        folder = PurePosixPath(task.repo).name / (place.parent if place.suffix else place)
        entries.append(FetchEntry(place.stem if place.suffix else task.config, repo, config, str(folder)))
    return list(dict.fromkeys(entries))


def choose(entries: Iterable[FetchEntry], names: Sequence[str]) -> list[FetchEntry]:
    """The entries of those names, all of them for no names.

    Raises ValueError that lists every name that is not known, with the nearest that is.
    """
    entries = list(entries)
    known = [entry.name for entry in entries]
    unknown = []
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            unknown.append(f"{name!r}" + (f" (did you mean {close[0]}?)" if close else ""))
    if unknown:
        raise ValueError(f"no such data set: {', '.join(unknown)}. The data sets are {', '.join(known)}.")
    return [entry for entry in entries if not names or entry.name in names]


@dataclass(frozen=True)
class PlannedSet:
    """A data set to fetch."""

    entry: FetchEntry
    listing: Listing
    files: Mapping[str, HubFile]
    """All its files, by their path below the data root."""
    missing: Mapping[str, HubFile]
    """Those of them that are not there."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())

    @property
    def num_bytes_missing(self) -> int:
        return sum(file.num_bytes for file in self.missing.values())


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
        free = _free_bytes(self.out)
        if self.num_bytes_missing > free:
            raise ValueError(
                f"{self.out}: {readable(self.num_bytes_missing)} are to be fetched, but only {readable(free)} are "
                "free there. Free some space, choose another --out, or fetch fewer with --only."
            )

    def lines(self) -> list[str]:
        """The plan as text, for `--dry-run`."""
        lines = [
            f"to fetch into {self.out}: {len(self.sets)} data set{'s' * (len(self.sets) != 1)}, "
            f"{readable(self.num_bytes_missing)} ({readable(_free_bytes(self.out))} free)"
        ]
        width = max((len(planned.entry.name) for planned in self.sets), default=0)
        for planned in self.sets:
            there = planned.num_bytes - planned.num_bytes_missing
            lines.append(
                f"  {planned.entry.name:{width}}  {readable(planned.num_bytes):>8}  {planned.entry.repo}"
                + (f", {readable(there)} there already" if there else "")
            )
        if self.whole:
            lines.append(f"there already: {', '.join(self.whole)}")
        return [*lines, *(f"cannot be fetched: {name}: {reason}" for name, reason in self.refused.items())]


def plan_fetch(entries: Iterable[FetchEntry], out: str | Path, *, overwrite: bool = False, hub: HfApi) -> FetchPlan:
    """Compare a data root with the hub; nothing is written.

    The hub is not asked about a data set that was fetched before and has all its files; a file of another is there if
    its checksum is the hub's. `overwrite` takes everything as missing. Raises HubUnreachable, and ValueError for a
    damaged record.
    """
    out = Path(out)
    listings: dict[str, Listing | HubRefused] = {}
    sets, whole, refused = [], [], {}
    for entry in entries:
        if _is_whole(entry, out) and not overwrite:
            whole.append(entry.name)
            continue
        if entry.repo not in listings:
            try:
                listings[entry.repo] = list_repository(hub, entry.repo)
            except HubRefused as reason:  # one answer a repository: many data sets share it
                listings[entry.repo] = reason
        listing = listings[entry.repo]
        try:
            if isinstance(listing, HubRefused):
                raise listing
            files = listing.select(entry.config, entry.folder)
        except ValueError as reason:
            refused[entry.name] = str(reason)
            continue
        missing = {local: file for local, file in files.items() if overwrite or file.flaw(out / local)}
        sets.append(PlannedSet(entry, listing, files, missing))
    return FetchPlan(out, tuple(sets), tuple(whole), refused)


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
    """Bytes of the files that were fetched."""

    def lines(self) -> list[str]:
        """The report as text."""
        done = f"fetched {len(self.fetched)} data set{'s' * (len(self.fetched) != 1)} ({readable(self.num_bytes)})"
        there = f"{done}; {len(self.whole)} there already"
        return [there, *(f"not fetched: {name}: {reason}" for name, reason in self.failed.items())]


def fetch(
    entries: Iterable[FetchEntry],
    out: str | Path,
    *,
    overwrite: bool = False,
    hub: HfApi,
    say: Callable[[str], None] = lambda line: None,
) -> FetchReport:
    """Download what is missing of the data sets into `out`, each into its folder; `say` hears a line for each.

    Killed, the next call goes on with the files that are not whole. A data set that the hub refuses or that arrives
    damaged is reported and the others are fetched. Raises HubUnreachable without a network, ValueError when the disk is
    too small or another process fetches into `out`, OSError when the disk does not take a file.
    """
    out = Path(out)
    with _alone(out):
        plan = plan_fetch(entries, out, overwrite=overwrite, hub=hub)
        plan.check_space()
        fetched: list[str] = []
        failed = dict(plan.refused)
        num_bytes = 0
        for number, planned in enumerate(plan.sets, start=1):
            name = planned.entry.name
            try:
                for file in _fetch_set(planned, out, hub):
                    num_bytes += file.num_bytes
            except HubUnreachable:
                raise
            except ValueError as error:
                failed[name] = str(error)
                say(f"{name} failed ({number} of {len(plan.sets)}): {error}")
                continue
            fetched.append(name)
            say(f"{name} fetched ({number} of {len(plan.sets)}): {readable(planned.num_bytes)}")
    return FetchReport(tuple(fetched), plan.whole, failed, num_bytes)


def _fetch_set(planned: PlannedSet, out: Path, hub: HfApi) -> Iterator[HubFile]:
    """Make a data set whole; yields each file that was downloaded, once it is in its place.

    Raises HubUnreachable, ValueError where the hub refuses a file or it arrives damaged, and OSError of the disk.
    """
    entry = planned.entry
    mark = entry.mark(out)
    arriving = mark / "arriving"
    mark.mkdir(parents=True, exist_ok=True)
    for local in (_read_record(entry, out) or {}).keys() - planned.files.keys():
        (out / local).unlink(missing_ok=True)  # the data set has it no more
    _write_record(planned, out)
    shutil.rmtree(arriving, ignore_errors=True)  # of a fetch that was killed
    for local, file in planned.missing.items():
        try:
            arrived = download(hub, planned.listing, file, arriving)
        except OSError as error:
            error.filename = str(out / local)
            raise
        if file.flaw(arrived):
            shutil.rmtree(arriving)
            raise ValueError(
                f"{file.path} of {entry.repo} arrived damaged: its checksum is not the one that {hub.endpoint} states. "
                "Fetch again; if it stays so, the mirror or a proxy on the way alters files."
            )
        (out / local).parent.mkdir(parents=True, exist_ok=True)
        os.replace(arrived, out / local)
        yield file
    shutil.rmtree(mark)


@dataclass(frozen=True)
class VerifyReport:
    """What a check found."""

    whole: tuple[str, ...]
    """Names of the data sets whose files all have the recorded checksum."""
    damaged: Mapping[str, tuple[str, ...]]
    """Name → a sentence for each file that is missing or not what it was."""
    absent: tuple[str, ...]
    """Names of the data sets that were not fetched into this folder."""

    def lines(self) -> list[str]:
        """The report as text."""
        lines = [f"{len(self.whole)} whole, {len(self.damaged)} damaged, {len(self.absent)} not fetched"]
        lines += [f"damaged: {name}: {reason}" for name, reasons in self.damaged.items() for reason in reasons]
        if self.absent:
            lines.append(f"not fetched: {', '.join(self.absent)}")
        return lines


def verify(entries: Iterable[FetchEntry], out: str | Path) -> VerifyReport:
    """Compare the data sets below `out` with the checksums of their records; reads every byte and needs no network.

    A damaged one is marked, so that it does not count as there and the next fetch mends it.
    """
    out = Path(out)
    whole, damaged, absent = [], {}, []
    for entry in entries:
        files = _read_record(entry, out)
        if files is None:
            absent.append(entry.name)
        elif flaws := tuple(filter(None, (file.flaw(out / local) for local, file in files.items()))):
            damaged[entry.name] = flaws
            with suppress(PermissionError):  # somebody else's data root: he is told, too
                entry.mark(out).mkdir(parents=True, exist_ok=True)
        else:
            whole.append(entry.name)
            if entry.mark(out).exists():
                with _alone(out):
                    shutil.rmtree(entry.mark(out))
    return VerifyReport(tuple(whole), damaged, tuple(absent))


def is_unfinished(path: Path) -> bool:
    """Was a fetch of the data set in this folder, or of this file, cut off, or has a check found it damaged?"""
    if path.is_file():
        return path.with_name(f".{path.name}{_UNFINISHED}").exists()
    return any(path.glob(f".*{_UNFINISHED}"))


def _is_whole(entry: FetchEntry, out: Path) -> bool:
    """Whether it was fetched to the end and every file is as long as it should be."""
    files = _read_record(entry, out)
    if files is None or entry.mark(out).exists():
        return False
    return not any(file.flaw(out / local, by_size=True) for local, file in files.items())


def _write_record(planned: PlannedSet, out: Path) -> None:
    entry, files = planned.entry, {local: dataclasses.asdict(file) for local, file in planned.files.items()}
    content = {"repo": entry.repo, "config": entry.config, "revision": planned.listing.revision, "files": files}
    write_text(entry.record(out), json.dumps(content, indent=2) + "\n")


def _read_record(entry: FetchEntry, out: Path) -> dict[str, HubFile] | None:
    """The files of an entry by their path below the data root; None where it was never fetched.

    Raises ValueError for a record that cannot be read, and for a folder that holds another data set: two in one folder
    could not be told apart by a reader.
    """
    path = entry.record(out)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {local: HubFile(**file) for local, file in content["files"].items()}
        repo, config = content["repo"], content["config"]
        if not all(map(is_below, files)):
            raise ValueError("it names files outside the data root")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged ({error!r}). Delete this file and fetch again.") from None
    if (repo, config) != (entry.repo, entry.config):
        raise ValueError(
            f"{out / entry.folder} holds {config} of {repo}, not {entry.config} of {entry.repo}. Fetch into another "
            "folder."
        )
    return files


@contextmanager
def _alone(out: Path) -> Generator[None]:
    """One fetch at a time in a data root: two would clear away what the other brings."""
    lock = out / _RECORDS / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{out}: another process is fetching into this folder. Wait for it, then go on.") from None
        yield


def _free_bytes(folder: Path) -> int:
    """Bytes free on the disk that holds a folder, which need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
