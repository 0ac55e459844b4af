"""JSON as Arrow: one series a line, or one an element of a document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foreloom.data.formats.cache import conversion_bar
from foreloom.data.formats.writer import write_series
from foreloom.data.record import records_of, series_of
from foreloom.data.source import Series


def jsonl_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """Lines are objects with `target` or `sequence` and any other column of `data/columns.py`, or lists of numbers."""
    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        write_series((one for path in paths for one in _lines(path, advance)), out)


def json_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """One document, a list of what a JSON line holds, or lines as in JSONL."""
    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        write_series((one for path in paths for one in _lines_or_document(path, advance)), out)


def _lines(path: Path, advance: Any) -> Iterator[Series]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            advance(len(line))
            if line.strip():
                where = f"{path}:{number}"
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{where}: not JSON ({error}). Each line is one object or one list.") from None
                yield series_of(record, where, str(number - 1))


def _lines_or_document(path: Path, advance: Any) -> Iterator[Series]:
    if _has_lines(path):
        yield from _lines(path, advance)
        return
    try:
        document = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error}). A list of series is wanted.") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}). A list of series is wanted.") from None
    advance(path.stat().st_size)
    for number, record in enumerate(records_of(document)):
        yield series_of(record, f"{path}: series {number}", str(number))


def _has_lines(path: Path) -> bool:
    """Is each line a series of its own? A list alone on its line is a document, whatever it holds."""
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
        try:
            value = json.loads(first)
        except ValueError:
            return not first
        return isinstance(value, dict) or any(line.strip() for line in file)
