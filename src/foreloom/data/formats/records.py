"""Series as people write them, lists of numbers or dictionaries of columns, in JSON, pickles and .npy files, as Arrow.

Axes: V variates, T steps.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foreloom.data import columns
from foreloom.data.columns import Kind
from foreloom.data.formats.cache import conversion_bar
from foreloom.data.formats.restricted_pickle import read_pickles, refuse_hollow, unpickle
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Series
from foreloom.files import parse_json, read_json

_LISTS = list | tuple | np.ndarray
_MOST_VALUES = 2**27
"""Of a series given as lists, and of a pickle: more only where the file is larger, a byte a value at least."""
_short = reprlib.repr
_LARGEST = int(np.finfo(np.float64).max)


def series_of(record: Any, where: str, item_id: str) -> Series:
    """A `Series` of a dictionary with `target` or `sequence` and any other column of `data/columns.py`, or of numbers.

    Bare numbers have one axis (steps) or two (variates, steps). `where` begins the sentence of a ValueError, `item_id`
    names a series that does not name itself.
    """
    if isinstance(record, _LISTS):
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
        kind = columns.kind_of(str(key))
        if kind is None or kind[0] is Kind.TARGET or values is None:
            continue
        if "_cat__" in key:
            rows = {kind[1]: _labels(values, where, key)}
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
            if covariate in found[kind[0]]:
                raise ValueError(f"{where}: {kind[0].value} covariate {covariate!r} is there twice. Rename one.")
            found[kind[0]][covariate] = row
    freq, stamps = record.get("freq"), record.get("timestamp")
    if not isinstance(freq, str | None):
        raise ValueError(
            f"{where}: freq is {_short(freq)}; write the distance of the steps as pandas does: h, D, W, MS ..."
        )
    if not isinstance(stamps, _LISTS | None):
        raise ValueError(f"{where}: timestamp is {_short(stamps)}; a list with a time for each step is wanted.")
    timestamps = None if stamps is None else columns.instants(stamps, where, target_VT.shape[1])
    start = columns.instant(record.get("start"), where, "start")
    return Series(
        item_id=_id(record, where, item_id),
        target_VT=target_VT,
        start=timestamps[0] if start is None and timestamps is not None and len(timestamps) else start,
        freq=freq,
        past=found[Kind.PAST],
        future=found[Kind.FUTURE],
        static=_static(record, where),
        timestamps=timestamps,
    )


def _id(record: dict, where: str, item_id: str) -> str:
    key = next((key for key in columns.ID_NAMES if key in record), None)
    if key is None:
        return item_id
    value = record[key]
    if not isinstance(value, str | int | float | np.number) or isinstance(value, bool):
        raise ValueError(f"{where}: {key!r} is {_short(value)}; a name, or a number, is wanted.")
    return str(value)


def _static(record: dict, where: str) -> dict[str, Any]:
    found = {key: value for key, value in record.items() if isinstance(key, str) and key.startswith("static__")}
    for key, value in found.items():
        if not isinstance(value, str | bool | int | float | np.generic | None):
            raise ValueError(f"{where}: {key!r} is {_short(value)}; one value, a number or text, is wanted.")
    return {key.removeprefix("static__"): value for key, value in found.items()}


def _labels(values: Any, where: str, key: str) -> np.ndarray:
    """Text, as objects; None is missing."""
    if not isinstance(values, _LISTS):
        raise ValueError(f"{where}: {key!r} is {_short(values)}; a list with a label or null a step is wanted.")
    for step, value in enumerate(values):
        if isinstance(value, _LISTS | dict):
            raise ValueError(f"{where}: {key!r} holds {_short(value)} at step {step}, a label or null is wanted.")
    return np.array([None if value is None else str(value) for value in values], dtype=object)


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
    _refuse_depth(values, where, name)
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
                raise ValueError(f"{where}: {name!r} holds {_short(value)} at step {step}, a number or null is wanted.")
            if isinstance(value, int) and abs(value) > _LARGEST:
                raise ValueError(
                    f"{where}: {name!r} holds an integer of more than 308 digits at step {step}, too large for any "
                    "number format. Scale the series down."
                )
    raise ValueError(
        f"{where}: {name!r} is {_short(values)}, neither a list of numbers nor a list of such lists. A table with one "
        "observation a row is read from .csv and .parquet."
    )


def _refuse_depth(values: Any, where: str, name: str) -> None:
    """Lists in lists in lists: numpy would make an array of any depth, whose size lists that hold one another hide."""
    num_values, depth, part = 1, 0, values
    while isinstance(part, _LISTS) and len(part):
        num_values, depth, part = num_values * len(part), depth + 1, part[0]
    if depth > 2:
        raise ValueError(f"{where}: {name!r} holds lists {depth} deep; variates are a list of lists of numbers.")
    if num_values > _MOST_VALUES:
        raise ValueError(f"{where}: {name!r} holds {num_values:,} numbers; a series has {_MOST_VALUES:,} at most.")


def jsonl_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """Lines are objects with `target` or `sequence` and any other column of `data/columns.py`, or lists of numbers."""
    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        series = (one for path in paths for one in _lines(path, _name_of(paths, path), advance))
        write_series(series, out, origin=_origin(paths))


def json_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """One document, a list of what a JSON line holds, or lines as in JSONL."""
    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        series = (one for path in paths for one in _lines_or_document(path, _name_of(paths, path), advance))
        write_series(series, out, origin=_origin(paths))


def _origin(paths: Sequence[Path]) -> Path:
    return paths[0] if len(paths) == 1 else paths[0].parent


def _name_of(paths: Sequence[Path], path: Path) -> str:
    """What the name of a series that does not name itself begins with, before its number in its file."""
    return "" if len(paths) == 1 else f"{path.stem}/"


def _lines(path: Path, name: str, advance: Any) -> Iterator[Series]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            advance(len(line))
            if line.strip():
                record = parse_json(line, path, "Each line is one object or one list.", line=number)
                yield series_of(record, f"{path}:{number}", f"{name}{number - 1}")


def _lines_or_document(path: Path, name: str, advance: Any) -> Iterator[Series]:
    if _has_lines(path):
        yield from _lines(path, name, advance)
        return
    document = read_json(path, "A list of series is wanted.")
    advance(path.stat().st_size)
    for number, record in enumerate(records_of(document)):
        yield series_of(record, f"{path}: series {number}", f"{name}{number}")


def _has_lines(path: Path) -> bool:
    """Is each line a series of its own? A list alone on its line is a document, whatever it holds."""
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
        try:
            value = json.loads(first)
        except (ValueError, RecursionError):
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
        number, num_values, last = 0, 0, None
        for path, document in documents:
            if path != last:
                number, num_values, last = 0, 0, path
                advance(path.stat().st_size)
            for record in records_of(document):
                one = series_of(record, f"{path}: series {number}", f"{_name_of(paths, path)}{number}")
                num_values += one.target_VT.size
                if num_values > max(_MOST_VALUES, path.stat().st_size):
                    raise ValueError(
                        f"{path}: series {number}: the file holds more numbers than bytes, the same ones again and "
                        "again. Write each series once."
                    )
                yield one
                number += 1

    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        write_series(series(), out, origin=_origin(paths))


def _read_npy(path: Path) -> Any:
    """The array, mapped; one of objects is read through the restricted unpickler."""
    with path.open("rb") as file:
        try:
            is_first_version = np.lib.format.read_magic(file) == (1, 0)
            read_header = (
                np.lib.format.read_array_header_1_0 if is_first_version else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            refuse_hollow(shape)
            if math.prod(shape) * dtype.itemsize > path.stat().st_size and not dtype.hasobject:
                raise ValueError(f"it is too short for the shape it states, {shape}")
            if dtype.kind in "fiub" and 1 <= len(shape) <= 3:
                return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OverflowError) as error:
            raise ValueError(f"{path}: not a readable .npy file ({error}). Copy or write it again.") from error
        if dtype.kind == "O":
            return unpickle(file, str(path))
    raise ValueError(
        f"{path}: the array holds {dtype} on {len(shape)} axes; numbers are wanted, on one axis (steps), two (series, "
        "steps) or three (series, variates, steps)."
    )
