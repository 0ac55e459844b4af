"""Writes any data set `open_source` reads as one Arrow or Parquet file, one series a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from foreloom.data.progress import conversion_bar
from foreloom.data.reader import open_source
from foreloom.data.series import Series
from foreloom.data.writer import write_series
from foreloom.files import whole_or_absent


def convert(source_path: str | Path, out_path: str | Path, form: Literal["arrow", "parquet"] = "arrow") -> int:
    """Write all series to `out_path` and return their number.

    "arrow" is an uncompressed IPC stream, which foreloom maps where it lies and `datasets.Dataset.from_file` reads;
    "parquet" is smaller. The file appears whole or not at all. Raises ValueError where `out_path` exists or ends in
    something else than `form`.
    """
    out = Path(out_path).expanduser()
    if out.suffix != f".{form}":
        raise ValueError(f"{out}: the name should end in .{form}, or choose another form.")
    if out.exists():
        raise ValueError(f"{out}: the file exists already. Remove it first, or choose another name.")
    source = open_source(source_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with conversion_bar(str(source_path), source.num_bytes) as advance, whole_or_absent(out) as beside:

        def series() -> Iterator[Series]:
            for item in range(len(source)):
                advance(source.num_bytes // len(source))
                yield source.read(item)

        return write_series(series(), beside, form)
