"""Writes any data set `open_source` reads as one Arrow or Parquet file, one series a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from foreloom.data.formats.cache import byte_bar
from foreloom.data.formats.reader import open_source
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Series, read_in_turn
from foreloom.data.tables.options import TableOptions
from foreloom.files import check_writable, whole_or_absent


def convert(
    source_path: str | Path,
    out_path: str | Path,
    form: Literal["arrow", "parquet"] = "arrow",
    table: TableOptions = TableOptions(),
) -> int:
    """Write all series to `out_path` and return their number. `table` says what a table does not say itself.

    "arrow" is an uncompressed IPC stream, which foreloom maps where it lies and `datasets.Dataset.from_file` reads;
    "parquet" is smaller. The file appears whole or not at all. Raises ValueError where `out_path` exists or ends in
    something else than `form`, takes no file, or lies in the folder that is read.
    """
    out = Path(out_path).expanduser()
    if out.suffix != f".{form}":
        raise ValueError(f"{out}: the name should end in .arrow or .parquet, whichever is written; here .{form}.")
    if out.exists():
        raise ValueError(f"{out}: the file exists already. Remove it first, or choose another name.")
    check_writable(out, "", [source_path])
    source = open_source(source_path, table=table)
    # What is mapped is read; what is synthetic is made, of four bytes a value.
    num_bytes = source.num_bytes or 4 * int(source.lengths.sum())
    with byte_bar(f"writing {out.name}", num_bytes) as advance, whole_or_absent(out) as beside:

        def series() -> Iterator[Series]:
            for one in read_in_turn(source, np.arange(len(source))):
                advance(num_bytes // len(source))
                yield one

        return write_series(series(), beside, form)
