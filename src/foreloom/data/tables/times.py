"""A column of times, however they are written: one reading for all of its cells, and a sentence where none fits.

Axes: N rows.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from foreloom.data.tables.frequency import infer_freq
from foreloom.data.tables.read import Rows

_ORDERS = {
    "000": ("mdy", "dmy", "ymd"), "0a0": ("dby", "ybd"), "a00": ("bdy",), "a0": ("by",), "0a": ("yb",),
    "00": ("my", "ym"), "a0a0": ("adby",), "aa00": ("abdy",),
}  # fmt: skip
"""How numbers (0) and words (a) of a date may be meant: day, month, year, b is a month's name, a one of a weekday."""
_CELL = (
    r"^(?P<date>[^:]*?)(?:(?:T|\s+)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?:\.(?P<part>\d{1,9}))?"
    r"\s*(?P<half>[AaPp][Mm])?\s*(?P<zone>Z|[+-]\d\d:?\d\d)?)?$"
)
_ZONE = r":\d\d(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)$"
_MOST_SHAPES = 20
_EPOCHS = ((1e8, 1e10, "s", "seconds"), (1e11, 1e13, "ms", "milliseconds"), (1e14, 1e16, "us", "microseconds"),
           (1e17, 9.2e18, "ns", "nanoseconds"))  # fmt: skip
"""Whole numbers from 1973 on are told by their size."""


def read_times(rows: Rows, name: str) -> pd.DatetimeIndex | pd.Index:
    """The times of all rows (N,): a DatetimeIndex in the column's own unit and zone, or int64 where it counts steps.

    Text is read in ISO 8601, else in the one format that fits all cells; of two that do, the one with the month first
    (the day, between dots) unless only the other one is regular, and a note of `rows` says so. Whole numbers are years,
    20240131, 202401 or the time since 1970, by their size, with a note too. ValueError with the row of a cell that is
    empty or is no time.
    """
    column = rows.column(name)
    if rows.is_text:
        column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), pa.scalar(None, column.type), column)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(
            f"{rows.origin.file(row)}: column {name!r} is empty in {rows.origin.row(row)}. Fill it in, or drop the row."
        )
    type_ = column.type
    if pa.types.is_timestamp(type_):
        return pd.DatetimeIndex(column.to_pandas())
    if pa.types.is_date(type_):
        return pd.DatetimeIndex(column.cast(pa.timestamp("us")).to_pandas())
    is_text = pa.types.is_large_string(type_)
    if is_text:
        column = pc.utf8_trim_whitespace(column)
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    if is_number or (is_text and rows.options.date_format is None and pc.all(pc.utf8_is_digit(column)).as_py()):
        try:
            return _from_numbers(rows, name, column.cast(pa.int64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            pass  # 0.5, or more digits than a time has
    if is_text:
        return _from_text(rows, name, column)
    raise ValueError(
        f"{rows.name}: column {name!r} holds {kind_of(type_)}, not times. Write them as 2024-01-31 12:00:00."
    )


def kind_of(type_: pa.DataType) -> str:
    """What a column of a type holds, in a word."""
    kinds = {
        "clock times": pa.types.is_time, "durations": pa.types.is_duration, "numbers": pa.types.is_primitive,
        "lists": lambda t: pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t),
        "structs": pa.types.is_struct, "bytes": lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t),
    }  # fmt: skip
    times = pa.types.is_timestamp(type_) or pa.types.is_date(type_)
    return (
        "times" if times else next((kind for kind, holds in kinds.items() if holds(type_)), f"values of type {type_}")
    )


def _from_numbers(rows: Rows, name: str, values_N: np.ndarray) -> pd.DatetimeIndex | pd.Index:
    low, high = int(values_N.min()), int(values_N.max())

    def said(meaning: str) -> None:
        rows.say(f"{rows.name}: column {name!r} holds whole numbers such as {values_N[0]}: they are read as {meaning}.")

    for least, most, unit, word in _EPOCHS:
        if least <= low and high < most:
            said(f"{word} since 1970")
            return pd.DatetimeIndex(values_N.astype(f"datetime64[{unit}]"))
    for least, most, form, word in ((1600, 2200, "%Y", "years"), (190001, 220012, "%Y%m", "year and month"),
                                    (16770101, 22611231, "%Y%m%d", "year, month and day")):  # fmt: skip
        if least <= low and high <= most and len(np.unique(values_N)) > 1:
            parsed = _parse(pd.Series(values_N.astype(str)), form)
            if parsed.notna().all():
                said(word)
                return pd.DatetimeIndex(parsed)
    return pd.Index(values_N)


def _from_text(rows: Rows, name: str, column: pa.Array) -> pd.DatetimeIndex:
    try:  # the common case, and a hundred times faster than what follows
        if rows.options.date_format is None:
            return pd.DatetimeIndex(column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        pass
    encoded = column.dictionary_encode()
    texts = encoded.dictionary
    place_N = encoded.indices.to_numpy(zero_copy_only=False)
    parsed, form = _parsed(rows, name, texts, place_N)
    wrong_N = parsed.isna().to_numpy()[place_N]
    if wrong_N.any():
        row = int(wrong_N.argmax())
        what = f"holds {column[row].as_py()!r} in {rows.origin.row(row)}, which is not a time"
        if form is not None and not wrong_N.all():
            what += f" of the form {form}, as the others are"
        elif rows.options.date_format is not None:
            what += f" of the form {form} (date_format)"
        raise ValueError(
            f"{rows.origin.file(row)}: column {name!r} {what}. Write times as 2024-01-31 12:00:00, weeks and quarters "
            "as the date they begin on."
        )
    return pd.DatetimeIndex(parsed).take(place_N)


def _parsed(rows: Rows, name: str, texts: pa.Array, place_N: np.ndarray) -> tuple[pd.Series, str | None]:
    """Distinct cells as times, NaT where one is none, and the form they were read in (None: ISO 8601)."""
    if rows.options.date_format is not None:
        return _parse(texts.to_pandas(), rows.options.date_format), rows.options.date_format
    has_zone = pc.match_substring_regex(texts, _ZONE).to_numpy(zero_copy_only=False)
    if has_zone.any() and not has_zone.all():
        row = int((has_zone[place_N] != has_zone[place_N[0]]).argmax())
        raise ValueError(
            f"{rows.origin.file(row)}: column {name!r} holds {texts[int(place_N[row])].as_py()!r} in "
            f"{rows.origin.row(row)}: some times state a UTC offset and some do not. Write all with one, or none."
        )
    is_iso = _parse(texts.slice(0, 50).to_pandas(), "ISO8601").notna().any()
    parsed = _parse(texts.to_pandas(), "ISO8601") if is_iso else pd.Series(pd.NaT, index=range(len(texts)))
    if parsed.notna().all():
        return _on_the_wall(rows, name, texts, parsed) if has_zone.any() else parsed, None
    readings = _readings(texts)
    best = max((one.notna().sum() for one, _ in readings), default=0)
    if best <= parsed.notna().sum():
        return parsed, None
    fitting = [(one, form) for one, form in readings if one.notna().sum() == best]
    if "." in fitting[0][1]:  # 01.02.2024 is written where the day stands first
        fitting.sort(key=lambda found: not found[1].startswith("%d"))
    known = rows.time_forms.get(name, "")[:2]  # what stands first in the table that this one goes on from
    fitting.sort(key=lambda found: not known or not found[1].startswith(known))
    chosen, form = fitting[0]
    others = [found for found in fitting[1:] if best == len(texts) and not found[0].equals(chosen)]
    if others and not (known and form.startswith(known)):
        other = others[0][1]
        if _freq(chosen) is None and _freq(others[0][0]) is not None:  # only the other one is regular
            (chosen, form), other = others[0], form
        example = texts[int(place_N[0])].as_py()
        rows.say(
            f"{rows.name}: column {name!r} can be read in two ways ({example!r}); it is read as {form}. If that is "
            f'wrong, say date_format="{other}" (--date-format "{other}").'
        )
    rows.time_forms[name] = form
    return chosen, form


def _freq(stamps: pd.Series) -> str | None:
    in_utc = pd.DatetimeIndex(stamps if stamps.dt.tz is None else stamps.dt.tz_convert(None))
    return infer_freq(np.unique(in_utc.to_numpy()))


def _readings(texts: pa.Array) -> list[tuple[pd.Series, str]]:
    """All cells in each order of day, month and year that some are written in, and the form in strptime's words.

    Cells may differ in their clock (01/02/2024 beside 01/02/2024 10:00), as where midnight is left out.
    """
    cells = pc.replace_substring_regex(texts, r"(\s\d{1,2})\s*([AaPp][Mm])$", r"\1:00 \2")
    parts = pc.extract_regex(cells, _CELL)
    clock_N, zone, clock_form = _clock(parts)
    dates = pc.struct_field(parts, "date").dictionary_encode()
    place_N = pd.Series(dates.indices.to_pandas()).fillna(-1).to_numpy(np.int64)
    readings = []
    for day, form in _dates(dates.dictionary):
        day_N = np.append(day.to_numpy(dtype="datetime64[ns]"), np.datetime64("NaT"))[place_N]
        stamps = pd.Series(day_N + clock_N)
        stamps = stamps if (stamps.to_numpy().astype(np.int64) % 1000).any() else stamps.dt.as_unit("us")
        stamps = stamps if zone is None else stamps.dt.tz_localize("UTC")
        readings.append((stamps, form + clock_form))
    return readings


def _clock(parts: pa.StructArray) -> tuple[np.ndarray, str | None, str]:
    """The time of day of cells that were taken apart, less their UTC offset: timedelta64[ns] (N,), NaT where wrong."""

    def number(name: str) -> np.ndarray:
        text = pc.struct_field(parts, name)
        return (
            pc.cast(pc.if_else(pc.equal(text, ""), "0", text), pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        )

    def text(name: str) -> np.ndarray:
        return pc.struct_field(parts, name).fill_null("").to_numpy(zero_copy_only=False).astype(str)

    hour, minute, second = number("hour"), number("minute"), number("second")
    half = np.char.lower(text("half"))
    wrong = (hour > 23) | (minute > 59) | (second > 59) | ((half != "") & ((hour < 1) | (hour > 12)))
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "pm"))
    nanos = pc.cast(pc.utf8_rpad(pc.struct_field(parts, "part"), 9, "0"), pa.int64()).fill_null(0)
    clock_N = ((hour * 60 + minute) * 60 + second) * 10**9 + nanos.to_numpy(zero_copy_only=False)
    zones = pd.Series(text("zone"))
    offsets = zones.map({zone: _offset_minutes(zone) for zone in zones.unique()}).to_numpy(np.int64)
    clock_N = (clock_N - offsets * 60 * 10**9).astype("timedelta64[ns]")
    clock_N[wrong] = np.timedelta64("NaT")
    form = " %I:%M %p" if (half != "").any() else " %H:%M" if (text("hour") != "").any() else ""
    form += ":%S" * bool(form and not (half != "").any() and (text("second") != "").any())
    return clock_N, next((zone for zone in zones.unique() if zone), None), form


def _offset_minutes(zone: str) -> int:
    if zone in ("", "Z"):
        return 0
    return (1 if zone[0] == "+" else -1) * (int(zone[1:3]) * 60 + int(zone[-2:]))


def _dates(texts: pa.Array) -> Iterator[tuple[pd.Series, str]]:
    """Dates without a clock in each order that some of them are written in; of all shapes."""
    shape = pc.replace_substring_regex(pc.replace_substring_regex(texts, r"\d+", "0"), r"[^\W\d_]+", "a")
    encoded = shape.dictionary_encode()
    code_N = encoded.indices.to_numpy(zero_copy_only=False)
    if len(encoded.dictionary) > _MOST_SHAPES:
        return
    cells = texts.to_pandas()
    formats: dict[str, list[tuple[int, str]]] = {}
    for code in range(len(encoded.dictionary)):
        for order, form in _date_formats(str(cells.iloc[int((code_N == code).argmax())])):
            formats.setdefault(order, []).append((code, form))
    for its in formats.values():
        day = pd.Series(pd.NaT, index=cells.index, dtype="datetime64[us]")
        for code, form in its:
            mine = (code_N == code) & day.isna().to_numpy()
            day[mine] = _parse(cells[mine], form).astype("datetime64[us]")
        if day.notna().any():
            yield day, its[0][1]


def _date_formats(cell: str) -> Iterator[tuple[str, str]]:
    """The formats a date may be written in, as (order of day, month and year, strptime format)."""
    tokens = re.findall(r"[^\W\d_]+|\d+", cell)
    between = re.split(r"[^\W\d_]+|\d+", cell)
    for order in _ORDERS.get("".join("0" if token.isdigit() else "a" for token in tokens), ()):
        year = tokens[order.index("y")]
        if len(year) not in (2, 4) or "%" in cell:
            continue
        for month, weekday in (("%b", "%a"), ("%B", "%A")):
            words = {"d": "%d", "m": "%m", "b": month, "a": weekday, "y": "%Y" if len(year) == 4 else "%y"}
            if month == "%b" or "b" in order:
                yield order, "".join(a + words[b] for a, b in zip(between, order, strict=False)) + between[-1]


def _on_the_wall(rows: Rows, name: str, texts: pa.Array, parsed: pd.Series) -> pd.Series:
    """Times of several UTC offsets: the local ones where those alone keep their time of day, as of a daily reading."""
    offsets = pc.unique(pc.replace_substring_regex(texts, r"^.*(Z|[+-]\d\d:?\d\d)$", r"\1"))
    if len(offsets) < 2 or parsed.dt.tz_convert("UTC").dt.time.nunique() == 1:
        return parsed
    wall = _parse(pc.replace_substring_regex(texts, r"\s*(Z|[+-]\d\d:?\d\d)$", "").to_pandas(), "ISO8601")
    if wall.dt.time.nunique() != 1:
        return parsed
    rows.say(
        f"{rows.name}: column {name!r} states several UTC offsets ({', '.join(offsets.to_pylist()[:3])}) at the same "
        "time of day: it is read as local times."
    )
    return wall


def _parse(cells: pd.Series, form: str) -> pd.Series:
    """Text as times, NaT where a cell does not fit; several UTC offsets, as of a clock changed in spring, are UTC."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # pandas 2 warns where 3 raises
        try:
            return pd.to_datetime(cells, format=form, errors="coerce")
        except (ValueError, FutureWarning):
            return pd.to_datetime(cells, format=form, errors="coerce", utc=True)
