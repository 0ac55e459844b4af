"""Series as people write them, lists of numbers or dictionaries of columns, in JSON, pickles and .npy files, as Arrow.

Axes: V variates, T steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foreloom.data import columns
from foreloom.data.columns import Kind
from foreloom.data.formats.cache import conversion_bar
from foreloom.data.formats.restricted_pickle import read_pickles, unpickle
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Series

_LARGEST = int(np.finfo(np.float64).max)


def series_of(record: Any, where: str, item_id: str) -> Series:
    """A `Series` of a dictionary with `target` or `sequence` and any other column of `data/columns.py`, or of numbers.

    Bare numbers have one axis (steps) or two (variates, steps). `where` begins the sentence of a ValueError, `item_id`
    names a series that does not name itself.
    """
    if isinstance(record, list | tuple | np.ndarray):
        record = {"sequence": record}
    name = next((name for name in columns.TARGET_NAMES if isinstance(record, dict) and name in record), None)
    if name is None:
        raise ValueError(
            f'{where}: no series found; one looks like [1.0, 2.0, 3.0] or {{"target": [1.0, 2.0, null], ...}}. '
            "A file that is no data does not belong in the folder."
        )
    target_VT = np.atleast_2d(_numbers(record[name], where, name))
    found: dict[Kind, dict[str, np.ndarray]] = {Kind.PAST: {}, Kind.FUTURE: {}}
    for key, values in record.items():
        kind = columns.kind_of(key)
        if kind is None or kind[0] is Kind.TARGET or values is None:
            continue
        if "_cat__" in key:
            if not isinstance(values, list | tuple | np.ndarray):
                raise ValueError(f"{where}: {key!r} is {values!r}; a list with a label or null a step is wanted.")
            rows = {kind[1]: np.array([None if v is None else str(v) for v in values], dtype=object)}
        else:
            array = _numbers(values, where, key)
            rows = (
                {kind[1]: array}
                if array.ndim == 1
                else {f"{key}_{number:03d}": row for number, row in enumerate(array)}
            )
        for covariate, row in rows.items():
            if len(row) != target_VT.shape[1]:
                raise ValueError(
                    f"{where}: covariate {key!r} has {len(row)} steps, the target {target_VT.shape[1]}. A covariate "
                    "must be as long as its target; null stands for missing values."
                )
            found[kind[0]][covariate] = row
    freq, stamps = record.get("freq"), record.get("timestamp")
    if not isinstance(freq, str | None):
        raise ValueError(f"{where}: freq is {freq!r}; write the distance of the steps as pandas does: h, D, W, MS ...")
    timestamps = _times(stamps, where, target_VT.shape[1]) if isinstance(stamps, list) else None
    start = _time(record.get("start"), where)
    return Series(
        item_id=str(next((record[key] for key in columns.ID_NAMES if key in record), item_id)),
        target_VT=target_VT,
        start=timestamps[0] if start is None and timestamps is not None and len(timestamps) else start,
        freq=freq,
        past=found[Kind.PAST],
        future=found[Kind.FUTURE],
        static={key.removeprefix("static__"): value for key, value in record.items() if key.startswith("static__")},
        timestamps=timestamps,
    )


def records_of(document: Any) -> Sequence[Any]:
    """The series a whole document holds: itself where it is a dictionary or a flat list of numbers, else its parts."""
    if isinstance(document, np.ndarray):
        if document.dtype.kind != "O":
            return [document] if document.ndim < 2 else list(document)
        document = document.tolist()
    is_many = isinstance(document, list | tuple) and (
        not document or any(isinstance(part, list | tuple | dict | np.ndarray) for part in document)
    )
    return document if is_many else [document]


def _numbers(values: Any, where: str, name: str) -> np.ndarray:
    """float32 where it was float32 or less, else float64; one or two axes; None is NaN."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub" and values.ndim in (1, 2):
        is_short = values.dtype.kind == "f" and values.dtype.itemsize <= 4
        return values.astype(np.float32 if is_short else np.float64)
    try:
        # Asked for floats, numpy reads None as NaN, but text of digits as a number too.
        array = np.array(values, dtype=np.float64)
        if array.ndim in (1, 2) and np.asarray(values).dtype.kind not in "USc":
            return array
    except (TypeError, ValueError, OverflowError):
        pass
    rows = values if isinstance(values, list) and values and all(isinstance(row, list) for row in values) else [values]
    if len({len(row) for row in rows if isinstance(row, list)}) > 1:
        raise ValueError(f"{where}: the variates of {name!r} differ in length. Bring them to one length with null.")
    for row in rows:
        for step, value in enumerate(row if isinstance(row, list) else [row]):
            if value is not None and not isinstance(value, int | float):
                raise ValueError(f"{where}: {name!r} holds {value!r} at step {step}, a number or null is wanted.")
            if isinstance(value, int) and abs(value) > _LARGEST:
                raise ValueError(
                    f"{where}: {name!r} holds an integer of more than 308 digits at step {step}, too large for any "
                    "number format. Scale the series down."
                )
    raise ValueError(f"{where}: {name!r} is not a list of numbers, nor a list of such lists.")


def _times(values: list, where: str, length: int) -> np.ndarray:
    """datetime64[us] (T,), as long as the target."""
    if len(values) != length:
        raise ValueError(f"{where}: timestamp has {len(values)} steps, the target {length}. They must be as many.")
    return np.array([_time(value, where, "timestamp") for value in values], dtype="datetime64[us]")


def _time(value: Any, where: str, name: str = "start") -> np.datetime64 | None:
    try:
        return None if value is None else np.datetime64(value, "us")
    except (ValueError, TypeError):
        raise ValueError(f"{where}: {name} {value!r} is not a time. Write it as 2024-01-31 12:00:00.") from None


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


def pickle_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """A list of what a JSON line holds, or several pickles in a row, each one series or a list of them."""
    _write(((path, document) for path in paths for document in read_pickles(path)), paths, out)


def npy_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """Arrays of steps, of series x steps, of series x variates x steps; object arrays hold series of any lengths."""
    _write(((path, _read_npy(path)) for path in paths), paths, out)


def _write(documents: Iterator[tuple[Path, Any]], paths: Sequence[Path], out: Path) -> None:
    def series() -> Iterator[Series]:
        number, last = 0, None
        for path, document in documents:
            if path != last:
                number, last = 0, path
                advance(path.stat().st_size)
            for record in records_of(document):
                yield series_of(record, f"{path}: series {number}", str(number))
                number += 1

    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        write_series(series(), out)


def _read_npy(path: Path) -> Any:
    """The array, mapped; one of objects is read through the restricted unpickler."""
    with path.open("rb") as file:
        try:
            is_first_version = np.lib.format.read_magic(file) == (1, 0)
            read_header = (
                np.lib.format.read_array_header_1_0 if is_first_version else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            if dtype.kind in "fiub" and 1 <= len(shape) <= 3:
                return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: not a readable .npy file ({error}). Copy or write it again.") from error
        if dtype.kind == "O":
            return unpickle(file, str(path))
    raise ValueError(
        f"{path}: the array holds {dtype} on {len(shape)} axes; numbers are wanted, on one axis (steps), two (series, "
        "steps) or three (series, variates, steps)."
    )
