"""A column of a table as numbers, as labels or as ids; what is none of these is refused with its row.

Axes: N rows, as the table has them.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from foreloom.data.tables.read import Rows
from foreloom.data.tables.times import kind_of

MISSING = [
    "", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA", "#N/A N/A",
    "-1.#IND", "1.#IND", "-1.#QNAN", "1.#QNAN",
]  # fmt: skip
"""What text files write for a missing value; pandas takes the same."""
_TRUTHS = {"true": "True", "false": "False", "1": "True", "0": "False", "yes": "True", "no": "False"}
_DATE_OR_CLOCK = (
    r"^(\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{2,4})([ T]\d{1,2}:\d\d.*)?$|^\d{1,2}:\d\d(:\d\d(\.\d+)?)?$"
)
_WITH_COMMA = r"^[+-]?\d[\d.]*(,\d*)+$"
_ASK = "Correct it or leave it empty."


def written(rows: Rows, name: str, num_rows: int | None = None) -> pa.Array:
    """A column, or its first rows, without what its file spells as missing."""
    column = rows.column(name)[:num_rows]
    if rows.is_text:
        missing = pc.is_in(pc.utf8_trim_whitespace(column), value_set=pa.array(MISSING, column.type))
        column = pc.if_else(missing, pa.scalar(None, column.type), column)
    return column


def is_empty(rows: Rows, name: str) -> bool:
    """Has the column no value at all?"""
    for num_rows in (100, None):  # most often the first ones tell
        column = written(rows, name, num_rows)
        nan = pc.sum(pc.is_nan(column)).as_py() or 0 if pa.types.is_floating(column.type) else 0
        if column.null_count + nan < len(column):
            return False
    return True


def numbers(rows: Rows, name: str, remedy: str = _ASK) -> np.ndarray:
    """float64 (N,), NaN is missing. ValueError, with the row, for what is no number."""
    if rows.is_text and rows.options.decimal is None:
        try:  # where nothing is missing, three times faster than what follows
            return pc.cast(rows.column(name), pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            pass
    column = written(rows, name)
    if pa.types.is_large_string(column.type):
        text = _with_points(rows, pc.utf8_trim_whitespace(column))
        try:
            values = pc.cast(text, pa.float64())
        except pa.ArrowInvalid:
            parsed = _parsed(text)
            is_wrong = pc.and_(pc.not_equal(pc.utf8_lower(text), "nan"), pa.array(np.isnan(parsed)))
            wrong = is_wrong.fill_null(False).to_numpy(zero_copy_only=False)
            if wrong.any():
                row = int(wrong.argmax())
                cell = column[row].as_py()
                if rows.is_text and rows.options.decimal is None and re.match(_WITH_COMMA, cell.strip()):
                    remedy = f"Is the comma its decimal point? Then say decimal=',' (--decimal ,). {remedy}"
                raise NotANumber(rows, name, row, cell, remedy) from None
            return parsed
    elif not _holds_numbers(column.type):
        raise ValueError(f"{rows.name}: column {name!r} holds {kind_of(column.type)}, where numbers are needed.")
    else:
        values = column.cast(pa.float64(), safe=False)
    return values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


class NotANumber(ValueError):
    """A cell that is no number."""

    def __init__(self, rows: Rows, name: str, row: int, cell: object, remedy: str, series: str = "") -> None:
        self.args_of = (rows, name, row, cell, remedy)
        place = rows.origin.row(row) + (f" (series {series})" if series else "")
        super().__init__(
            f"{rows.origin.file(row)}: column {name!r} holds {cell!r} in {place}, where a number is needed. {remedy}"
        )

    def of(self, series: str) -> NotANumber:
        """The same, with the series that the row belongs to."""
        return NotANumber(*self.args_of, series)


def is_numeric(rows: Rows, name: str) -> bool:
    """Numbers, or labels? Text among numbers is more often a slip than a label: such a column counts as numbers.

    ValueError for times, lists and other things that are neither.
    """
    type_ = rows.columns.schema.field(name).type
    is_category = pa.types.is_dictionary(type_)
    column = written(rows, name)
    if pa.types.is_large_string(column.type):
        distinct, counts = pc.value_counts(column.drop_null()).flatten()
        if pc.all(pc.match_substring_regex(distinct, _DATE_OR_CLOCK)).as_py() and len(distinct):
            raise _refused(rows, name, "times")
        if is_category:
            return False
        spelled = _with_points(rows, pc.utf8_trim_whitespace(distinct))
        is_number = ~np.isnan(_parsed(spelled))
        if rows.is_text if is_number.all() else np.average(is_number, weights=counts) > 0.5:
            return True
        has_comma = pc.match_substring_regex(spelled, _WITH_COMMA).to_numpy(zero_copy_only=False)
        if has_comma.any() and (has_comma | is_number).all() and name not in rows.options.category:
            rows.say(
                f"{rows.name}: column {name!r} holds text such as {distinct[int(has_comma.argmax())].as_py()!r}, and "
                "text is labels. Where these are numbers, write them with a decimal point, or say decimal=',' "
                "(--decimal ,) of a text file."
            )
        return False
    if not _holds_numbers(column.type):
        raise _refused(rows, name, kind_of(column.type))
    return not is_category and not pa.types.is_boolean(column.type)


def labels(rows: Rows, name: str) -> pa.Array:
    """Text (N,), null is missing: truth values are True and False however they are written, 1.0 is 1."""
    column = written(rows, name)
    if pa.types.is_boolean(column.type):
        return _truths(column.cast(pa.large_string()))
    if pa.types.is_large_string(column.type):
        distinct = pc.utf8_lower(pc.unique(column.drop_null()))
        return _truths(column) if set(distinct.to_pylist()) <= {"true", "false"} and len(distinct) else column
    return _as_text(column)


def labels_like(rows: Rows, name: str, past: set[str]) -> pa.Array:
    """`labels`, with truth values that are written otherwise than over the past (1, yes) as the past has them."""
    column = labels(rows, name)
    lower = set(pc.utf8_lower(pc.unique(column.drop_null())).to_pylist())
    if past <= {"True", "False"} and lower <= set(_TRUTHS):
        return _truths(column)
    if past <= set(_TRUTHS) and lower <= {"true", "false"} and len(lower):
        for true, false in (("1", "0"), ("yes", "no")):
            if past <= {true, false}:
                return pc.if_else(pc.equal(pc.utf8_lower(column), "true"), true, false).cast(pa.large_string())
    return column


def ids(rows: Rows, name: str) -> pa.Array:
    """Text as written (N,), of whole numbers without a point. ValueError with the row of a series without a name."""
    column = rows.column(name)
    missing = column.is_null()
    if pa.types.is_floating(column.type):
        missing = pc.is_null(column, nan_is_null=True)
    if pa.types.is_large_string(column.type) and rows.is_text:
        missing = pc.or_(missing, pc.equal(column, ""))
    if pc.any(missing).as_py():
        row = pc.index(missing, True).as_py()
        raise ValueError(
            f"{rows.origin.file(row)}: column {name!r} is empty in {rows.origin.row(row)}. Fill it in, or drop the row."
        )
    if pa.types.is_nested(column.type):
        raise ValueError(
            f"{rows.name}: column {name!r} holds {kind_of(column.type)}, and names the series. Write text."
        )
    return _as_text(column)


def _with_points(rows: Rows, text: pa.Array) -> pa.Array:
    """Numbers with the decimal point that Python knows; what marks thousands then (1.000,5) is no number."""
    point = rows.options.decimal if rows.is_text else None
    return text if point is None else pc.replace_substring(pc.replace_substring(text, ".", "?"), point, ".")


def _truths(column: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(column)
    place = pc.index_in(lower, value_set=pa.array(list(_TRUTHS), lower.type))
    return pa.array(list(_TRUTHS.values()), pa.large_string()).take(place)


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        present = values[~np.isnan(values)]
        if (present == np.floor(present)).all() and (np.abs(present) < 2**53).all():
            return (
                pc.if_else(pc.is_null(column, nan_is_null=True), None, column).cast(pa.int64()).cast(pa.large_string())
            )
    try:
        return column.cast(pa.large_string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.large_string())


def _parsed(text: pa.Array) -> np.ndarray:
    """float64, NaN where text is no number."""
    numbers = pd.to_numeric(text.to_pandas().astype(object), errors="coerce")
    return numbers.to_numpy(np.float64, na_value=np.nan)


def _holds_numbers(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
    return any(holds(type_) for holds in kinds)


def _refused(rows: Rows, name: str, kind: str) -> ValueError:
    instead = " (day of week ...)" if kind == "times" else ""
    return ValueError(f"{rows.name}: column {name!r} holds {kind}. Drop it, or make numbers of it{instead}.")
