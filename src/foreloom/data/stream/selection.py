"""Which series of a source a run may draw: long enough, not excluded, at most `max_series` by a fixed choice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foreloom.config.located import RecipeError
from foreloom.data.hashing import random_bits
from foreloom.data.source import Source
from foreloom.data.synthetic.address import short_name
from foreloom.files import write_text

_NONE = np.array([], dtype=np.int64)
_KEYS = ("source", "item", "series", "reason")
"""Of a line that names a series to leave out."""


@dataclass(frozen=True)
class Selection:
    """The usable series of one source."""

    items: np.ndarray
    """int64, sorted rows of the source."""
    num_short: int
    """Series left out because they are too short for one window."""
    lengths: np.ndarray
    """int64, steps that may be drawn from each series of the source, its holdout taken off."""


def select(
    source: Source,
    min_length: int,
    max_series: int | None = None,
    holdout: int = 0,
    excluded: np.ndarray = _NONE,
) -> Selection:
    """Take `holdout` steps off every end, leave out series under `min_length` steps, keep `max_series` of the rest.

    The rows in `excluded` are left out too. The choice does not depend on the run's seed. Raises ValueError, with
    the lengths found, where nothing is left.
    """
    lengths = np.maximum(source.lengths - holdout, 0)
    items = np.flatnonzero(lengths >= min_length)
    num_short = len(source) - len(items)
    if not len(items):
        raise ValueError(
            f"{source.name}: all {len(source)} series are shorter than {min_length + holdout} steps "
            f"(min_past + prediction_length{f' + holdout {holdout}' if holdout else ''}); their lengths are "
            f"{_describe(source.lengths)}. Lower data.prediction_length or data.min_past, or take the source out."
        )
    usable = np.setdiff1d(items, excluded, assume_unique=True)
    if not len(usable):
        raise ValueError(f"{source.name}: data.exclude lists every usable series; take the source out instead.")
    return Selection(fixed_choice(usable, max_series), num_short, lengths)


def fixed_choice(items: np.ndarray, max_series: int | None) -> np.ndarray:
    """`max_series` of the sorted `items`, or all: by a hash of the item's number, the same in every run."""
    if max_series is None or max_series >= len(items):
        return items
    bits = random_bits(0, "selection", "series", items)
    return np.sort(items[np.argpartition(bits, max_series - 1)[:max_series]])


def _describe(lengths: np.ndarray) -> str:
    longest = np.sort(lengths)[::-1]
    shown = ", ".join(str(length) for length in longest[:10])
    return shown if len(longest) <= 10 else f"{shown}, ... {longest[-1]} (longest first)"


def read_excluded(paths: Sequence[str | Path], sources: Sequence[Source]) -> list[np.ndarray]:
    """The rows of each source that files of JSON lines list: sorted, int64.

    A line is an object with `source` (a path of the mixture, or the last parts of one), `item` (the series' row) or
    `series` (its id) or both, and a `reason` that nobody reads but people. Empty lines are passed over. Raises
    `RecipeError` (a ValueError) with `file:line: sentence` for every line that names no series of `sources`.
    """
    items: list[set[int]] = [set() for _ in sources]
    rows_by_id: dict[int, dict[str, int]] = {}
    problems = []
    lines = [(path, *one) for path in map(Path, paths) for one in enumerate(path.read_text("utf-8").splitlines(), 1)]
    for path, number, line in lines:
        if not line.strip():
            continue
        try:
            entry = _parse(line)
            which = _which_source(entry["source"], sources)
            items[which].add(_item(entry, sources[which], rows_by_id.setdefault(which, {})))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        raise RecipeError(problems)
    return [np.array(sorted(of_source), dtype=np.int64) for of_source in items]


def append_excluded(path: str | Path, entries: Iterable[Mapping[str, Any]]) -> int:
    """Add `entries` to the file, made if need be, but those whose series it lists already; how many were added."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    listed = {_series_of(json.loads(line)) for line in lines if line.strip()}
    new = {_series_of(entry): json.dumps(dict(entry), ensure_ascii=False) for entry in entries}
    added = [line for series, line in new.items() if series not in listed]
    if added:
        write_text(path, "\n".join([*lines, *added]) + "\n")
    return len(added)


def write_excluded(path: str | Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """The file of `entries`, in place of what is there."""
    write_text(path, "".join(f"{json.dumps(dict(entry), ensure_ascii=False)}\n" for entry in entries))


def _series_of(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry.get("source"), entry.get("item"), entry.get("series")


def _parse(line: str) -> dict[str, Any]:
    form = 'expected an object such as {"source": "m4_hourly", "item": 17} or {"source": "m4_hourly", "series": "H18"}'
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{form}; this is not JSON ({error.msg}).") from None
    if not isinstance(entry, dict) or "source" not in entry or not {"item", "series"} & entry.keys():
        raise ValueError(f"{form}.")
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ValueError(f"unknown {', '.join(unknown)}; known are {', '.join(_KEYS)}.")
    return entry


def _which_source(name: str, sources: Sequence[Source]) -> int:
    matching = [n for n, source in enumerate(sources) if _is_called(name, source.name)]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(source.name for source in sources)
    if matching:
        raise ValueError(f"{name!r} is the name of {len(matching)} sources; write the whole path ({listed}).")
    raise ValueError(f"there is no source {name!r} in data.sources ({listed}).")


def _is_called(name: str, source: str) -> bool:
    """By its whole name, its short one, or the last parts of a path."""
    parts = Path(name).parts
    return name in (source, short_name(source)) or (bool(parts) and Path(source).parts[-len(parts) :] == parts)


def _item(entry: Mapping[str, Any], source: Source, rows_by_id: dict[str, int]) -> int:
    """`rows_by_id`: filled where a series is to be found by its id alone, which reads the source once."""
    item, series = entry.get("item"), entry.get("series")
    if item is None:
        if not rows_by_id:
            rows_by_id.update({source.read(row).item_id: row for row in reversed(range(len(source)))})
        if series not in rows_by_id:
            raise ValueError(f"{source.name} has no series {series!r}.")
        return rows_by_id[series]
    if not isinstance(item, int) or not 0 <= item < len(source):
        raise ValueError(f"{source.name} has {len(source):,} series, numbered from 0: there is no item {item!r}.")
    found = source.read(item).item_id
    if series not in (None, found):
        raise ValueError(f"item {item} of {source.name} is series {found!r}, not {series!r}; the data have changed.")
    return item
