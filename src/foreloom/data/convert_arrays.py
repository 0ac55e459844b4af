"""Files of Python and numpy as Arrow: pickles and .npy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foreloom.data.formats.cache import conversion_bar
from foreloom.data.formats.restricted_pickle import read_pickles, unpickle
from foreloom.data.formats.writer import write_series
from foreloom.data.record import records_of, series_of
from foreloom.data.source import Series


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
