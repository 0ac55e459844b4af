"""What a data set holds, as numbers: lengths, frequencies, missing values, duplicates, covariates, some examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from foreloom.data.formats.fingerprint import checksum
from foreloom.data.formats.parts import find_parts
from foreloom.data.formats.reader import open_source
from foreloom.data.hashing import random_bits
from foreloom.data.source import VARIATES, Series, Watch, read_in_turn
from foreloom.data.synthetic.address import is_synthetic
from foreloom.data.tables.options import TableOptions

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_EXAMPLE_POINTS = 500


@dataclass(frozen=True)
class Example:
    """One variate to look at: every k-th step, 500 points at most."""

    item_id: str
    steps: np.ndarray
    """int64, step in the series."""
    values: np.ndarray
    """float64."""


@dataclass(frozen=True)
class DataReport:
    """Findings about one data set. Series, points, lengths and variates are of all; the rest of the `num_inspected`
    series that were read."""

    path: str
    layout: str
    num_bytes: int
    """Memory-mapped."""
    num_series: int
    num_points: int
    """Steps of all series, each variate counted, covariates not."""
    length_quantiles: Mapping[float, float]
    """Of steps; between two lengths where no series has it, as the median of 3 and 4 is 3.5."""
    num_usable: int
    """Series long enough for one window: min_past + prediction_length steps."""
    num_full_context: int
    """Series long enough for a window whose context is full."""
    num_inspected: int
    variates: tuple[int, int]
    """Fewest and most target variates of a series."""
    freqs: Mapping[str, int]
    """Series of each frequency, most frequent first; "unknown" where none is stated."""
    num_missing: int
    """NaN values among the points read."""
    missing_share: float
    num_non_finite: int
    """Infinite values; windows treat them as missing."""
    num_constant: int
    """Series without two different values."""
    num_duplicates: int
    """Series whose values all equal those of an earlier one."""
    past: tuple[str, ...]
    """Covariates known over the past only."""
    future: tuple[str, ...]
    """Covariates known ahead."""
    categorical: tuple[str, ...]
    """Those of them that hold labels."""
    static: tuple[str, ...]
    checksum: str | None
    """SHA-256 of all bytes of the data set's files, where it was asked for."""
    examples: tuple[Example, ...] = field(repr=False)


def inspect(
    path: str | Path,
    *,
    context_length: int = 2048,
    prediction_length: int = 64,
    max_series: int = 20_000,
    num_examples: int = 6,
    table: TableOptions = TableOptions(),
    with_checksum: bool = False,
    watch: Watch = lambda series, total: series,
) -> DataReport:
    """Read a data set, or `max_series` of its series chosen evenly, and report on it; `watch` sees them go by.

    Raises ValueError as `open_source` does.
    """
    source = open_source(path, table=table)
    lengths = source.lengths
    items = np.arange(len(source))
    if len(items) > max_series:
        items = np.sort(np.argpartition(random_bits(0, "inspect", "series", items), max_series)[:max_series])
    tally = _Tally()
    for series in watch(read_in_turn(source, items), len(items)):
        tally.add(series)
    shown = items[np.linspace(0, len(items) - 1, min(num_examples, len(items))).astype(int)]
    return DataReport(
        path=source.name,
        layout=_layout(path),
        num_bytes=source.num_bytes,
        num_series=len(source),
        num_points=int((lengths.astype(np.int64) * source.num_targets).sum()),
        length_quantiles={q: _whole(float(np.quantile(lengths, q))) for q in _QUANTILES},
        num_usable=int((lengths >= 2 * prediction_length).sum()),
        num_full_context=int((lengths >= context_length + prediction_length).sum()),
        num_inspected=len(items),
        variates=(int(source.num_targets.min()), int(source.num_targets.max())),
        freqs=dict(tally.freqs.most_common()),
        num_missing=tally.num_missing,
        missing_share=tally.num_missing / max(tally.num_points, 1),
        num_non_finite=tally.num_infinite,
        num_constant=tally.num_constant,
        num_duplicates=sum(count - 1 for count in tally.contents.values()),
        past=tuple(sorted(tally.names["past"])),
        future=tuple(sorted(tally.names["future"])),
        categorical=tuple(sorted(tally.names["categorical"])),
        static=tuple(sorted(tally.names["static"])),
        checksum=checksum(Path(path).expanduser()) if with_checksum and not is_synthetic(path) else None,
        examples=tuple(_example(source.read(int(item))) for item in shown),
    )


def _whole(number: float) -> float:
    """An int where it is one."""
    return int(number) if number.is_integer() else number


def _layout(path: str | Path) -> str:
    if is_synthetic(path):
        return "synthetic"
    return " + ".join(dict.fromkeys(part.layout for part in find_parts(Path(path).expanduser())))


class _Tally:
    """Running counts over series."""

    def __init__(self) -> None:
        self.num_points = self.num_missing = self.num_infinite = self.num_constant = 0
        self.freqs: Counter[str] = Counter()
        self.contents: Counter[bytes] = Counter()
        self.names: dict[str, set[str]] = {role: set() for role in ("past", "future", "categorical", "static")}

    def add(self, series: Series) -> None:
        values_VT = series.target_VT
        self.num_points += values_VT.size
        self.num_missing += int(np.isnan(values_VT).sum())
        self.num_infinite += int(np.isinf(values_VT).sum())
        finite = values_VT[np.isfinite(values_VT)]
        self.num_constant += bool(finite.size == 0 or finite.min() == finite.max())
        self.freqs[series.freq or "unknown"] += 1
        shape = str(values_VT.shape).encode()
        self.contents[blake2b(values_VT.tobytes(), digest_size=16, key=shape).digest()] += 1
        self.names["static"] |= set(series.static) - {VARIATES}
        for role, covariates in (("past", series.past), ("future", series.future)):
            self.names[role] |= set(covariates)
            self.names["categorical"] |= {
                name for name, values in covariates.items() if values.dtype.kind not in "fiub"
            }


def _example(series: Series) -> Example:
    stride = -(-series.length // _EXAMPLE_POINTS) or 1
    steps = np.arange(0, series.length, stride)
    return Example(series.item_id, steps, series.target_VT[0, ::stride].astype(np.float64))
