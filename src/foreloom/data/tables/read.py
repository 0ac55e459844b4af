"""Any table as Arrow columns as written, with the place of every row: CSV, TSV, Parquet, pandas, and what speaks Arrow.

Of a text file every column is text here, and nothing in it is missing: what a cell means is the reader's question, who
knows whether the column holds ids, times, numbers or labels.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import difflib
import io
import json
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from foreloom.data.columns import ID_NAMES, TIME_NAMES
from foreloom.data.mistaken import what_it_is
from foreloom.data.tables.options import TableOptions

_PERIOD = "pandas.period"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HEADER_BYTES = 2**16
_INDEX = "__index_level_"
"""What pandas calls an index without a name in Parquet; nobody misses it."""


@dataclass(frozen=True)
class Origin:
    """Where the rows of a table come from, for sentences: an argument, or the files that it was read from."""

    files: tuple[str, ...]
    num_rows: tuple[int, ...]
    """Rows of each file."""
    first_row: int = 0
    """The number a file's first row has for its owner: 0, or 2 below the header of a text file."""

    @property
    def name(self) -> str:
        return self.files[0] if len(self.files) == 1 else str(Path(self.files[0]).parent)

    def file(self, row: int) -> str:
        """The name of the file that holds a row."""
        return self.files[self._place(row)[0]]

    def row(self, row: int) -> str:
        """A row by its number in its file."""
        return f"row {self._place(row)[1] + self.first_row}"

    def _place(self, row: int) -> tuple[int, int]:
        first_rows = np.cumsum([0, *self.num_rows[:-1]])
        file = int(np.searchsorted(first_rows, row, side="right")) - 1
        return file, int(row) - int(first_rows[file])


@dataclass(frozen=True)
class Rows:
    """A table with one observation a row."""

    columns: pa.Table
    origin: Origin
    is_text: bool = False
    """Read from a text file: numbers are spelled out, and so is what is missing."""
    options: TableOptions = field(default_factory=TableOptions)
    lone: tuple[str, ...] = ("series",)
    """What the series is called where nothing names it, one a file."""
    notes: list[str] = field(default_factory=list)
    """What their owner should know: guesses, columns left out."""
    time_forms: dict[str, str] = field(default_factory=dict)
    """In which form, in strptime's words, a column of times is read that is not ISO 8601: the first choice of those
    that fit before it was read, the one that was taken after."""
    freqs: Mapping[str, str] = field(default_factory=dict)
    """The frequency of a series, by its id, where the data state it beside the times."""

    @property
    def name(self) -> str:
        return self.origin.name

    @property
    def names(self) -> list[str]:
        return self.columns.schema.names

    def __len__(self) -> int:
        return len(self.columns)

    def say(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def column(self, name: str) -> pa.Array:
        """A column in one piece, without its dictionary. ValueError for bytes that are not UTF-8."""
        column = self.columns.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        column = _plain_text(column).combine_chunks()
        if _holds_bytes(column.type):
            row = next(row for row, value in enumerate(column.to_pylist()) if value is not None and not _is_utf8(value))
            raise ValueError(
                f"{self.origin.file(row)}: column {name!r} holds bytes in {self.origin.row(row)} that are not UTF-8: "
                f"{column[row].as_py()!r}. Decode them; in pandas: table[{name!r}].str.decode('latin-1')."
            )
        return column

    def nearest(self, name: object) -> str:
        """The columns there are, the most similar first."""
        return nearest(name, self.names)


def nearest(name: object, known: Iterable[object]) -> str:
    """`Did you mean 'target'? Its columns: ...`, for a column that is not there."""
    names = [str(other) for other in known]
    close = difflib.get_close_matches(str(name), names, n=1)
    columns = f"Its columns: {', '.join(names)}."
    return f"Did you mean {close[0]!r}? {columns}" if close else columns


def rows_of(table: Any, argument: str, options: TableOptions = TableOptions()) -> Rows:
    """A frame of pandas, or whatever hands out Arrow columns (polars, pyarrow, DuckDB); `Rows` are passed through.

    TypeError, naming the `argument`, for anything else.
    """
    import pandas as pd

    if isinstance(table, Rows):
        return table
    if isinstance(table, pd.DataFrame):
        table = _with_named_times(table, options)
        table = table.reset_index(_keys_in_index(table, options))
        names, columns = [str(name) for name in table.columns], [_from_pandas(column) for _, column in table.items()]
        arrow = pa.table(columns, names=names) if names else pa.table({})
    elif hasattr(table, "__arrow_c_stream__") and not isinstance(table, pd.Series):
        arrow = pa.table(table)
    else:
        raise TypeError(
            f"{argument} is of type {type(table).__name__}: give a data frame with a row a series and time step, of "
            "pandas, polars or pyarrow. Files are forecast with foreloom.forecast.forecast_file or the command line."
        )
    return _checked(Rows(_without_periods(arrow), Origin((argument,), (len(arrow),)), options=options))


def _with_named_times(table: Any, options: TableOptions) -> Any:
    """A frame whose times are an index without a name, and stand in no column, with that name."""
    import pandas as pd

    is_index = isinstance(table.index, pd.DatetimeIndex | pd.PeriodIndex) and table.index.name is None
    named = set(table.columns) & {options.timestamp_column, *TIME_NAMES}
    return table.rename_axis(options.timestamp_column) if is_index and not named else table


def _keys_in_index(table: Any, options: TableOptions) -> list[str]:
    """The levels of a frame's index that are its ids or times, which no column holds."""
    columns, levels = set(table.columns), [*table.index.names]
    keys: list[str] = []
    for asked, known in ((options.id_column, ID_NAMES), ((options.timestamp_column,), TIME_NAMES)):
        names = asked if columns & {*asked, *known} else (*asked, *known)
        keys += [level for level in levels if level in names and level not in columns]
    return keys


def read_rows(path: Path, options: TableOptions = TableOptions()) -> Rows:
    """The rows of a file, .parquet or text (.csv, .tsv, also compressed: .csv.gz). ValueError, with the file."""
    if ".parquet" in path.suffixes:
        table = _without_periods(_read_parquet(path))
        return _checked(Rows(table, Origin((str(path),), (len(table),)), options=options, lone=(path.stem,)))
    notes: list[str] = []
    table = _read_text(path, options, notes)
    origin = Origin((str(path),), (len(table),), first_row=2)
    return _checked(Rows(table, origin, is_text=True, options=options, lone=(path.stem,), notes=notes))


def read_names(path: Path) -> list[str]:
    """The columns of a text file whose owner says nothing of it."""
    data, encoding = _text_of(path, [])
    return _header(path, data, encoding, _separator(path, TableOptions()))


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of several files of one kind as one table; a column that a file lacks is missing there."""
    if len(parts) == 1:
        return parts[0]
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    tables = [part.columns for part in parts]
    for name in names:
        types = {table.schema.field(name).type for table in tables if name in table.schema.names}
        if len(types) > 1 and any(map(pa.types.is_large_string, types)):
            tables = [_with_text(table, name) for table in tables]
    first, origins = parts[0], [part.origin for part in parts]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError as error:
        folder = Path(first.name).parent
        raise ValueError(f"{folder}: the columns of the files do not fit together: {error}") from error
    origin = Origin(
        tuple(name for one in origins for name in one.files),
        tuple(size for one in origins for size in one.num_rows),
        first.origin.first_row,
    )
    lone = tuple(name for part in parts for name in part.lone)
    return Rows(table, origin, first.is_text, first.options, lone, [note for part in parts for note in part.notes])


def _with_text(table: pa.Table, name: str) -> pa.Table:
    if name not in table.schema.names:
        return table
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, table.column(name).cast(pa.large_string()))


def _checked(rows: Rows) -> Rows:
    """Text in one type; no two columns of one name; those without one left out, with a word."""
    named = [place for place, name in enumerate(rows.names) if not _is_unnamed(name)]
    if any(not name.startswith(_INDEX) for name in rows.names if _is_unnamed(name)):
        rows.say(f"{rows.name}: a column without a name is left out.")
    names = [rows.names[place] for place in named]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{rows.name} has two columns {min(twice)!r}. Rename or drop one.")
    columns = [_plain_text(rows.columns.column(place)) for place in named]
    return replace(rows, columns=pa.table(columns, names=names) if columns else pa.table({}))


def _is_unnamed(name: str) -> bool:
    """What a frame's index becomes in files, and the column after a comma at the end of every line."""
    return not name.strip() or name.startswith(("Unnamed: ", _INDEX))


def _plain_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text in one type, bytes too where they are UTF-8; other columns as they are."""
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())  # a piece of 2 GB and more has room
    if _holds_bytes(column.type):
        with contextlib.suppress(pa.ArrowInvalid):  # told of by who asks for the column
            return column.cast(pa.large_string())
    return column


def _holds_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_periods(table: pa.Table) -> pa.Table:
    """Periods of pandas, numbers beneath, as the times they begin at."""
    for place, one in enumerate(table.schema):
        kind = (
            getattr(one.type, "extension_name", None) or (one.metadata or {}).get(b"ARROW:extension:name", b"").decode()
        )
        if kind != _PERIOD:
            continue
        import pandas as pd

        stated = getattr(one.type, "freq", None)
        freq = stated or json.loads((one.metadata or {})[b"ARROW:extension:metadata"])["freq"]
        column = table.column(place).combine_chunks()
        ordinals = column.storage if isinstance(column, pa.ExtensionArray) else column
        begins = ordinals.fill_null(0).to_numpy(zero_copy_only=False)
        periods = pd.PeriodIndex(pd.arrays.PeriodArray(begins, dtype=pd.PeriodDtype(freq)))
        times = pa.array(periods.to_timestamp(), mask=ordinals.is_null().to_numpy(zero_copy_only=False))
        table = table.set_column(place, one.name, times)
    return table


def _read_parquet(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowInvalid, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        what = what_it_is(path, "Write it again.")
        raise ValueError(f"{path} cannot be read as a table: {str(error).rstrip('.')}. {what}") from None


def _read_text(path: Path, options: TableOptions, notes: list[str]) -> pa.Table:
    data, encoding = _text_of(path, notes)
    separator = _separator(path, options)
    header = _header(path, data, encoding, separator)
    fields = [f"f{number}" for number in range(len(header))]

    def parsed(use_threads: bool) -> pa.Table:
        return arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(
                autogenerate_column_names=True, encoding=encoding, use_threads=use_threads
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(fields, pa.large_string()), strings_can_be_null=False
            ),
        )

    try:
        table = parsed(use_threads=True)
    except pa.ArrowInvalid:
        try:
            table = parsed(use_threads=False)  # which knows the row that is wrong
        except pa.ArrowInvalid as error:
            reason = str(error).rstrip(".").removeprefix("CSV parse error: ").replace("Row #", "row ")
            raise ValueError(f"{path} cannot be read as a table: {reason}.{_hint(header)}") from None
    return table.slice(1).rename_columns(header)


def _separator(path: Path, options: TableOptions) -> str:
    kinds = [suffix for suffix in path.suffixes if suffix in (".csv", ".tsv")]
    return options.separator or ("\t" if kinds[-1:] == [".tsv"] else ",")  # week.tsv.csv is a .csv


def _text_of(path: Path, notes: list[str]) -> tuple[bytes, str]:
    """The bytes of a text file, decompressed, and how they are encoded: UTF-8, UTF-16 with a mark, or else Latin-1."""
    try:
        with pa.input_stream(str(path), compression="detect") as file:
            data = file.read()
    except OSError as error:
        if error.errno:
            raise
        raise ValueError(
            f"{path} cannot be read as a table: it is cut short or damaged ({error}). Copy it again."
        ) from None
    if data[:2] in _UTF16_MARKS:
        return data, "utf-16"
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        data.decode("utf-8")  # of 100 MB in 0.05 s
        return data, "utf8"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        notes.append(
            f"{path} is not UTF-8 (row {line}), it is read as Latin-1 (cp1252). Save it as UTF-8 if letters look wrong."
        )
        return data, "cp1252" if _fits(data, "cp1252") else "latin-1"


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _header(path: Path, data: bytes, encoding: str, separator: str) -> list[str]:
    text = data[:_HEADER_BYTES].decode(encoding, errors="ignore").lstrip("\ufeff")
    header = next(csv.reader(io.StringIO(text), delimiter=separator), [])
    if not header:
        raise ValueError(f"{path} cannot be read as a table: it is empty. Write it again.")
    return [name.strip() for name in header]


def _hint(header: Sequence[str]) -> str:
    """What spreadsheets of countries with a decimal comma write looks like a table of one column."""
    for separator, name, option in (
        (";", "semicolons", "--separator ';' --decimal ,"),
        ("\t", "tabs", "--separator tab"),
    ):
        if len(header) == 1 and separator in header[0]:
            return (
                f" Its columns seem to be parted by {name}; save it with commas, and numbers with a decimal point, or "
                f"say {option} (of a recipe's source or a task: table.separator, table.decimal)."
            )
    return ""


def separator_hint(rows: Rows) -> str:
    """Why a text table may have one column only; empty where it has more."""
    return _hint(rows.names) if rows.is_text else ""


def _from_pandas(column: Any) -> pa.Array:
    """Arrow's reading of a column; where its values are of several types, numbers if all are, else text."""
    try:
        return pa.Array.from_pandas(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        missing = column.isna().to_numpy()
        values = column.tolist()
    present = [value for value, gone in zip(values, missing, strict=True) if not gone]
    are_numbers = all(isinstance(value, numbers.Number) and not isinstance(value, bool | complex) for value in present)
    as_one, type_ = (float, pa.float64()) if are_numbers else (str, pa.large_string())
    return pa.array([None if gone else as_one(v) for v, gone in zip(values, missing, strict=True)], type_)
