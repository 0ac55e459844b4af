"""Forecasts from file to file: CSV or Parquet in, CSV or Parquet out, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreloom.files import whole_or_absent
from foreloom.forecast.origin import mark

if TYPE_CHECKING:
    import pandas as pd

    from foreloom.forecast.model import Model

_MISSING = [
    "", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA", "#N/A N/A",
    "-1.#IND", "1.#IND", "-1.#QNAN", "1.#QNAN",
]  # fmt: skip
"""What text files write for a missing value; pandas takes the same."""


def forecast_file(
    model: Model, data: str | Path, out: str | Path, *, future: str | Path | None = None, **options: Any
) -> pd.DataFrame:
    """Forecast every series of the table in `data` and write the result to `out`; returns it too.

    `future` is a file with the covariates known ahead; `options` are those of `Model.predict_df`. ValueError where
    `out` is one of the files that are read.
    """
    _suffix(Path(out))  # before the forecast is paid for
    for given in (data, future):
        if given is not None and Path(out).resolve() == Path(given).resolve():
            raise ValueError(f"{out} holds the data, and the forecast would be written over them; name another file.")
    ids = options.get("id_column", "item_id")
    result = model.predict_df(read_table(data, ids), None if future is None else read_table(future, ids), **options)
    write_table(result, out)
    return result


def read_table(path: str | Path, id_column: str = "item_id") -> pd.DataFrame:
    """A .csv (also .csv.gz, .tsv) or .parquet file as a frame; ValueError for one that cannot be read.

    In `id_column` (or unique_id) of a text file only nothing is missing: NA may be a series, of Namibia for one.
    """
    import pandas as pd
    import pyarrow as pa

    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a forecast is made from one table, a .csv, .tsv or .parquet file.")
    if not path.is_file():
        raise ValueError(f"no file {path}.")
    try:
        if _suffix(path) == ".parquet":
            return mark(pd.read_parquet(path), path, first_row=0)
        separator = "\t" if ".tsv" in path.suffixes else ","
        missing = {
            name: [""] if name in (id_column, "unique_id") else _MISSING
            for name in pd.read_csv(path, sep=separator, nrows=0).columns
        }
        df = pd.read_csv(path, sep=separator, na_values=missing, keep_default_na=False)
        return mark(df, path, first_row=2)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path} cannot be read as a table: {str(error).rstrip('.')}.") from None


def write_table(df: pd.DataFrame, path: str | Path) -> None:
    """Write a frame as .csv or .parquet: beside, then renamed, so that `path` is never half a file."""
    path = Path(path)
    suffix = _suffix(path)
    with whole_or_absent(path) as beside:
        if suffix == ".parquet":
            df.to_parquet(beside, index=False)
        else:
            df.to_csv(beside, index=False, sep="\t" if ".tsv" in path.suffixes else ",")


def _suffix(path: Path) -> str:
    """.csv, .tsv or .parquet, compression aside."""
    known = [suffix for suffix in path.suffixes if suffix in (".csv", ".tsv", ".parquet")]
    if not known:
        raise ValueError(f"{path}: foreloom reads and writes tables as .csv, .tsv and .parquet.")
    return known[-1]
