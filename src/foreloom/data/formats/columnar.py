"""Columnar files that cannot be mapped where they lie (Parquet, compressed Arrow) as plain Arrow, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foreloom.data import columns
from foreloom.data.formats.arrow_columns import read_ipc
from foreloom.data.formats.cache import conversion_bar
from foreloom.data.mistaken import what_it_is
from foreloom.data.tables.as_series import is_table, write_series_of
from foreloom.data.tables.options import TableOptions, refuse_table_options

_BATCH_BYTES = 64 * 2**20


def parquet_to_arrow(paths: Sequence[Path], out: Path, options: TableOptions = TableOptions()) -> None:
    """One series a row as it is, column by column; a table with one observation a row by `data/tables`."""
    schemas = [read_parquet_schema(path) for path in paths]
    if is_table(schemas[0], options):
        write_series_of(paths, out, options)
    else:
        refuse_table_options(paths[0], options)
        _rewrite(parquet_batches(paths), schemas, paths, out)


def arrow_to_plain(paths: Sequence[Path], out: Path) -> None:
    """The same rows, uncompressed and aligned, with numbers of a type numpy has."""
    schemas = []
    for path in paths:
        with pa.memory_map(str(path)) as file:
            schemas.append(read_ipc(file)[0])
    _rewrite(arrow_batches(paths), schemas, paths, out)


def read_parquet_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except pa.ArrowInvalid as error:
        otherwise = "Copy or write it again."
        raise ValueError(f"{path}: not a readable Parquet file ({error}). {what_it_is(path, otherwise)}") from error


def _rewrite(batches: Iterator[pa.RecordBatch], schemas: Sequence[pa.Schema], paths: Sequence[Path], out: Path) -> None:
    total_bytes = sum(path.stat().st_size for path in paths)
    schema = _common_schema(schemas, paths)
    with (
        conversion_bar(paths[0].name, total_bytes) as advance,
        pa.OSFile(str(out), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch.select(schema.names).cast(schema) if batch.schema != schema else batch)
            advance(min(batch.nbytes, total_bytes))


def _common_schema(schemas: Sequence[pa.Schema], paths: Sequence[Path]) -> pa.Schema:
    """Types that hold the columns of every file, and that can be mapped; ids of several types are text, as written."""
    columns.check_same_names(schemas, paths)
    types = {field.name: field.type for field in schemas[0]}
    for path, schema in zip(paths[1:], schemas[1:], strict=True):
        for name, known in types.items():
            type_ = schema.field(name).type
            if name in columns.ID_NAMES and type_ != known:
                types[name] = pa.string()
                continue
            both = [pa.schema([(name, one)]) for one in (known, type_)]
            try:
                types[name] = pa.unify_schemas(both, promote_options="permissive").field(name).type
            except pa.ArrowTypeError:
                raise ValueError(
                    f"{path}: column {name!r} holds {type_}, in {paths[0].name} beside it {known}. Give it one type in "
                    "all files."
                ) from None
    return pa.schema([(name, _mappable(type_)) for name, type_ in types.items()])


def parquet_batches(paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """The rows of Parquet files, in batches of about 64 MB."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            num_rows = file.metadata.num_rows
            num_bytes = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            rows_per_batch = max(1, _BATCH_BYTES * num_rows // max(num_bytes, 1))
            yield from file.iter_batches(batch_size=min(rows_per_batch, 2**16))


def arrow_batches(paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """The batches of Arrow files, stream or file format, mapped."""
    for path in paths:
        with pa.memory_map(str(path)) as file:
            yield from read_ipc(file)[1]


def _mappable(type_: pa.DataType) -> pa.DataType:
    """The same nesting of lists over numbers that numpy has; any other type as it is."""
    if isinstance(type_, pa.BaseExtensionType):
        return _mappable(type_.storage_type)
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_mappable(type_.value_type), type_.list_size)
    if pa.types.is_large_list(type_):
        return pa.large_list(_mappable(type_.value_type))
    if pa.types.is_list(type_):
        return pa.list_(_mappable(type_.value_type))
    if pa.types.is_boolean(type_) or pa.types.is_null(type_):
        return pa.float32()
    if pa.types.is_decimal(type_):
        return pa.float64()
    return type_
