"""Writes any data set `open_source` reads as one Arrow or Parquet file, one series a row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from foreloom.data.formats.reader import open_source
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Watch, read_in_turn
from foreloom.data.synthetic.address import is_synthetic
from foreloom.data.tables.options import TableOptions
from foreloom.files import check_writable, whole_or_absent


def convert(
    source_path: str | Path,
    out_path: str | Path,
    form: Literal["arrow", "parquet"] = "arrow",
    table: TableOptions = TableOptions(),
    watch: Watch = lambda series, total: series,
) -> int:
    """Write all series to `out_path` and return their number. `table` says what a table does not say itself, `watch`
    sees the series go by.

    "arrow" is an uncompressed IPC stream, which foreloom maps where it lies and `datasets.Dataset.from_file` reads;
    "parquet" is smaller. The file appears whole or not at all. Raises ValueError where `out_path` exists or ends in
    something else than `form`, takes no file, or lies in the folder that is read, and for a synthetic collection whose
    address does not say how many series.
    """
    out = Path(out_path).expanduser()
    if out.suffix != f".{form}":
        raise ValueError(f"{out}: the name should end in .arrow or .parquet, whichever is written; here .{form}.")
    if out.exists():
        raise ValueError(f"{out}: the file exists already. Remove it first, or choose another name.")
    check_writable(out, "", [source_path])
    source = open_source(source_path, table=table)
    if is_synthetic(source_path) and not re.search(r"[?&]num_series=", source.name):
        enough = f"{source.name}{'&' if '?' in source.name else '?'}num_series=1000"
        raise ValueError(
            f"{source.name} stands for {len(source):,} series, made as they are read; say how many to write: {enough}."
        )
    with whole_or_absent(out) as beside:
        return write_series(watch(read_in_turn(source, np.arange(len(source))), len(source)), beside, form)
