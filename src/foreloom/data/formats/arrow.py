"""A source of series in memory-mapped Arrow files, one series a row: nothing is read before it is asked for.

Axes: R rows of a window, C context, H horizon, V variates, T time steps.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow.types import is_null, is_temporal

from foreloom.data import columns
from foreloom.data.columns import Kind
from foreloom.data.encoding import encode
from foreloom.data.formats.arrow_columns import LabelColumn, MappedFile, NumberColumn, as_python
from foreloom.data.source import VARIATES, RowCounts, Series

_Covariates = list[tuple[str, NumberColumn | LabelColumn]]


class ArrowSource:
    """`Source` over Arrow files with the columns listed in `data/columns.py`.

    `origin` is what errors name, and `row` one row of it, where the files were made of others.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        name: str,
        fingerprint: str,
        files: Mapping[str, str],
        origin: Path | None = None,
        row: Callable[[int], str] | None = None,
    ):
        self.name = name
        self.fingerprint = fingerprint
        self.files = files
        self._origin = origin or paths[0]
        self._files = [MappedFile(path) for path in paths]
        self.num_bytes = sum(len(file.map) for file in self._files)
        self._batches = [batch for file in self._files for batch in file.batches]
        self._first_rows = _first_rows([len(batch) for batch in self._batches])
        self._first_items = _first_rows([sum(map(len, file.batches)) for file in self._files])
        self._row = row or self._row_of_file
        schema = _common_schema(self._files, self._origin)
        self._id_name = next((name for name in columns.ID_NAMES if name in schema.names), None)
        self._target_name = next(name for name in columns.TARGET_NAMES if name in schema.names)
        self._static_names = [name for name in schema.names if name.startswith(("static__", "feat_static_"))]
        self.schema = schema

        self._target = NumberColumn(self._target_name, self._files, self._origin, self._row)
        self.lengths = self._target.length_N
        self.num_targets = self._target.variates_N
        self.num_rows = self.num_targets.copy()
        if not len(self.lengths):
            raise ValueError(f"{self._origin}: the data set is empty, it has no series. Check how it was written.")
        self._check_rows()
        self._past = self._open_covariates(Kind.PAST)
        self._future = self._open_covariates(Kind.FUTURE)
        for _, column in (*self._past, *self._future):
            self.num_rows += column.variates_N
        for file in self._files:
            file.forget_pages()

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, item: int) -> Series:
        """Series `item`; its arrays are views of the file where the file holds floats without nulls."""
        file, length = self._file_of(item), int(self.lengths[item])
        target_VT = self._target.cut(file, item, 0, length)
        if target_VT.dtype not in (np.float32, np.float64):
            target_VT = target_VT.astype(np.float64 if target_VT.dtype.itemsize > 2 else np.float32)
        stamps = self._timestamps(item)
        start = self._start(item)
        if start is None and stamps is not None and len(stamps):
            start = stamps[0]
        return Series(
            item_id=str(item if self._id_name is None else self._cell(self._id_name, item)),
            target_VT=target_VT,
            start=start,
            freq=self._cell("freq", item) if "freq" in self.schema.names else None,
            past=self._read_covariates(self._past, file, item, length),
            future=self._read_covariates(self._future, file, item, length),
            static={name.removeprefix("static__"): self._cell(name, item) for name in self._static_names},
            timestamps=stamps,
        )

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        file, length = self._file_of(item), int(self.lengths[item])
        num_steps = min(cut, context_RC.shape[1])
        num_ahead = min(length - cut, future_RH.shape[1])
        begin, end = cut - num_steps, cut + num_ahead
        context = context_RC[:, context_RC.shape[1] - num_steps :]
        future = future_RH[:, :num_ahead]

        num_targets = int(self._target.variates_N[item])
        values_VT = self._target.cut(file, item, begin, end)
        context[:num_targets] = values_VT[:, :num_steps]
        future[:num_targets] = values_VT[:, num_steps:]
        row = num_targets
        counts = [num_targets]
        for covariates in (self._past, self._future):
            for _, column in covariates:
                num_variates = int(column.variates_N[item])
                if not num_variates:
                    continue
                if isinstance(column, LabelColumn):
                    labels = column.cut(item, begin, end)
                    encoded = encode(labels[:num_steps], context[:num_targets], labels[num_steps:])
                    context[row], future[row] = encoded
                else:
                    values_VT = column.cut(file, item, begin, end)
                    context[row : row + num_variates] = values_VT[:, :num_steps]
                    future[row : row + num_variates] = values_VT[:, num_steps:]
                row += num_variates
            counts.append(row - sum(counts))
        return RowCounts(*counts)

    def _file_of(self, item: int) -> int:
        return bisect_right(self._first_items, item) - 1

    def _row_of_file(self, item: int) -> str:
        file = self._file_of(item)
        return f"{self._files[file].path}: row {item - self._first_items[file]}"

    def _cell(self, name: str, item: int) -> Any:
        batch = bisect_right(self._first_rows, item) - 1
        column = self._batches[batch].column(name)
        place = f"{self._row(item)}: {name!r}"
        value = as_python(column.slice(item - self._first_rows[batch], 1), place)[0]
        if not isinstance(value, bytes):
            return value
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{place} holds bytes that are not UTF-8: {value!r}. Write it as text.") from None

    def _start(self, item: int) -> np.datetime64 | None:
        if "start" not in self.schema.names:
            return None
        return columns.instant(self._cell("start", item), self._row(item), "start")

    def _timestamps(self, item: int) -> np.ndarray | None:
        if "timestamp" not in self.schema.names or not columns.is_list(self.schema.field("timestamp").type):
            return None
        batch = bisect_right(self._first_rows, item) - 1
        values = self._batches[batch].column("timestamp")[item - self._first_rows[batch]].values
        if values is None:
            return None
        where = self._row(item)
        are_times = is_temporal(values.type)
        listed = values.to_numpy(zero_copy_only=False) if are_times else as_python(values, f"{where}: 'timestamp'")
        return columns.instants(listed, where, int(self.lengths[item]))

    def _read_covariates(self, covariates: _Covariates, file: int, item: int, length: int) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name, column in covariates:
            if not column.variates_N[item]:
                continue
            if isinstance(column, LabelColumn):
                found[name] = column.cut(item, 0, length)
            elif "__" in column.name:
                found[name] = column.cut(file, item, 0, length)[0]
            else:
                rows_VT = column.cut(file, item, 0, length)
                found.update({f"{name}_{number:03d}": row for number, row in enumerate(rows_VT)})
        return found

    def _open_covariates(self, kind: Kind) -> _Covariates:
        """Those of one role, sorted by the covariate's name."""
        found: _Covariates = []
        for column_name in self.schema.names:
            meaning = columns.kind_of(column_name)
            if meaning is None or meaning[0] is not kind:
                continue
            leaf = columns.leaf_type(self.schema.field(column_name).type)[0]
            column: NumberColumn | LabelColumn
            if columns.is_text(leaf) and column_name.startswith(("past_cat__", "future_cat__")):
                column = LabelColumn(column_name, self._files, self._origin, self._first_rows)
            else:
                column = NumberColumn(column_name, self._files, self._origin, self._row)
            self._check_lengths(column)
            if meaning[1] in [name for name, _ in found]:
                raise ValueError(
                    f"{self._origin}: two columns hold the {kind.value} covariate {meaning[1]!r}. Rename or drop one."
                )
            found.append((meaning[1], column))
        return sorted(found, key=lambda named: named[0])

    def _check_lengths(self, column: NumberColumn | LabelColumn) -> None:
        wrong = np.flatnonzero((column.variates_N > 0) & (column.length_N != self.lengths))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"{self._row(row)}: covariate {column.name!r} has {column.length_N[row]} steps, the target "
                f"{self.lengths[row]}. A covariate must be as long as its target; NaN stands for missing values."
            )

    def _check_rows(self) -> None:
        """Has every row a series and an id? Warn where nested lists look as if they were written step by step."""
        if (self.num_targets == 0).any():
            raise ValueError(
                f"{self._row(int((self.num_targets == 0).argmax()))}: {self._target_name!r} holds no series, it is "
                "null or a list of no variates. Drop the row; values that are missing are null or NaN in a list."
            )
        for number, batch in enumerate(self._batches if self._id_name else ()):
            ids = batch.column(self._id_name)
            if ids.null_count:
                place = self._first_rows[number] + int(ids.is_null().to_numpy(zero_copy_only=False).argmax())
                raise ValueError(f"{self._row(place)}: {self._id_name!r} is null. Give every series a name.")
        is_tall = (self.num_targets > self.lengths) & (self.lengths > 0)
        if is_tall.mean() > 0.5 and f"static__{VARIATES}" not in self.schema.names:
            row = int(is_tall.argmax())
            warnings.warn(
                f"{self._row(row)}: {self._target_name!r} is a list of {self.num_targets[row]} lists of "
                f"{self.lengths[row]}, read as {self.num_targets[row]} variates of {self.lengths[row]} steps. If each "
                "inner list is a step, write a list for each variate instead (transpose it).",
                stacklevel=5,
            )


def _common_schema(files: Sequence[MappedFile], origin: Path) -> pa.Schema:
    columns.check_same_names([file.schema for file in files], [file.path for file in files])
    schema = files[0].schema
    if "freq" in schema.names and not columns.is_text(type_ := schema.field("freq").type) and not is_null(type_):
        raise ValueError(f"{origin}: column 'freq' holds {type_}; text is wanted, as pandas writes it: h, D, W, MS ...")
    if not any(name in schema.names for name in columns.TARGET_NAMES):
        raise ValueError(
            f"{origin}: there is no column 'target' (or 'sequence'); the columns are "
            f"{', '.join(schema.names)}. Rename the column that holds the series."
        )
    return schema


def _first_rows(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()[:-1]] if len(sizes) else [0]
