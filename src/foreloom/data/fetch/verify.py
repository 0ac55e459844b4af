"""Re-checks fetched data sets against the checksums of their records; reads every byte and needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from foreloom.data.fetch.entry import FetchEntry
from foreloom.data.fetch.listing import HubFile
from foreloom.data.fetch.plan import readable_bytes
from foreloom.data.fetch.record import read_record, record_file


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
    """Check the data sets below `out`. The record of a damaged one is removed, so that the next fetch mends it."""
    out = Path(out)
    whole, damaged, absent = [], {}, []
    for entry in entries:
        record = read_record(entry, out)
        if record is None:
            absent.append(entry.name)
            continue
        wrong = [_wrong(out / local, file) for local, file in record.files.items()]
        sentences = tuple(sentence for sentence in wrong if sentence)
        if sentences:
            damaged[entry.name] = sentences
            record_file(entry, out).unlink()
        else:
            whole.append(entry.name)
    return VerifyReport(tuple(whole), damaged, tuple(absent))


def _wrong(path: Path, file: HubFile) -> str | None:
    if not path.is_file():
        return f"{path} is missing."
    num_bytes = path.stat().st_size
    if num_bytes != file.num_bytes:
        return f"{path} has {readable_bytes(num_bytes)} where the hub's file has {readable_bytes(file.num_bytes)}."
    if not file.checksum.fits(path):
        return f"{path} has another checksum than the hub's file."
    return None
