"""A comparison of two recipes as a table with a verdict: means over seeds and paired differences, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreloom.report.ab.intervals import CONFIDENCE, Estimate, estimate, paired_difference
from foreloom.report.ab.measures import LOSS, MEASURES, WQL, Measure, Measured
from foreloom.report.tables import Cell, Column, ScoreTable

VERDICTS = {-1: "lower", 0: "unclear", 1: "higher"}


@dataclass(frozen=True)
class Row:
    """One measure of both recipes. An estimate is None where no run of that recipe has the measure."""

    measure: Measure
    a: Estimate | None
    b: Estimate | None
    difference: Estimate | None
    """B - A, of the seeds with which both have finished."""

    @property
    def verdict(self) -> str:
        """`better` or `worse` (of B) where the interval of the difference leaves out 0; why not, where it does not."""
        if self.difference is None or self.measure.better is None:
            return ""
        if self.difference.half_width is None:
            return "one seed"
        if not self.difference.sign:
            return "unclear"
        return "better" if VERDICTS[self.difference.sign] == self.measure.better else "worse"


@dataclass(frozen=True)
class Compared:
    """A's runs beside B's."""

    title: str
    names: tuple[str, str]
    num_seeds: int
    """With which both have finished."""
    rows: tuple[Row, ...]

    @property
    def decisive(self) -> Row | None:
        """The held-out loss, or WQL where the losses are of different kinds; None where no seed has both."""
        by_name = {row.measure.name: row for row in self.rows if row.difference is not None}
        return by_name.get(LOSS) or by_name.get(WQL)

    @property
    def is_worse(self) -> bool:
        """Is B worse than A, and not by chance?"""
        return self.decisive is not None and self.decisive.verdict == "worse"


def compare(
    title: str, names: tuple[str, str], a: Mapping[int, Measured], b: Mapping[int, Measured], *, loss_is_same: bool
) -> Compared:
    """Lay out the finished runs of both, by seed. Unless `loss_is_same`, the losses are shown and not compared."""
    both = sorted(a.keys() & b.keys())
    rows = []
    for measure in MEASURES:
        of_a, of_b = _values(a, measure), _values(b, measure)
        if not of_a and not of_b:
            continue
        seeds = [seed for seed in both if seed in of_a and seed in of_b]
        is_compared = bool(seeds) and (loss_is_same or measure.name != LOSS)
        rows.append(
            Row(
                measure,
                estimate(list(of_a.values())) if of_a else None,
                estimate(list(of_b.values())) if of_b else None,
                paired_difference([of_a[s] for s in seeds], [of_b[s] for s in seeds]) if is_compared else None,
            )
        )
    return Compared(title, names, len(both), tuple(rows))


def table_of(compared: Compared, notes: Sequence[str] = ()) -> ScoreTable:
    """Measure, A, B, their difference, what it says of B; the verdict and `notes` below."""
    columns = [Column("Measure", "text"), *(Column(name, "score") for name in compared.names)]
    columns += [Column("Difference", "score"), Column("Verdict", "text")]
    rows: list[list[Cell]] = [
        [row.measure.label, _mean(row.a), _mean(row.b), _difference(row.difference), row.verdict]
        for row in compared.rows
    ]
    explained = (
        f"Means over {compared.num_seeds} seeds ± {CONFIDENCE:.0%} intervals (Student's t). Difference: B - A, seed by "
        "seed; better and worse are said of B where its interval leaves out 0."
        if compared.num_seeds > 1
        else "Difference: B - A, of one seed. It has no interval and may be chance; --seeds 3 tells more."
    )
    return ScoreTable(columns, rows, [], compared.title, (verdict(compared), explained, *notes))


def verdict(compared: Compared) -> str:
    """One sentence: is B better?"""
    row = compared.decisive
    if row is None:
        return "No seed with which both recipes have finished: nothing can be said."
    assert row.difference is not None
    difference, label = row.difference, row.measure.label[0].lower() + row.measure.label[1:]
    size = f"the {label} of B is {_number(abs(difference.mean), 3)} {'lower' if difference.mean < 0 else 'higher'}"
    if difference.mean == 0:
        size = f"the {label} of B is no higher and no lower"
    if difference.interval is None:
        return f"Of one seed, {size} than that of A."
    lower, upper = (_number(end, 3, sign="+") for end in difference.interval)
    found = f"{size} than that of A ({CONFIDENCE:.0%} interval of B - A: {lower} to {upper})"
    if row.verdict == "unclear":
        return f"A and B cannot be told apart: {found}."
    return f"B is {row.verdict}: {found}."


def as_data(compared: Compared) -> dict[str, Any]:
    """For ab.json."""
    return {
        "title": compared.title,
        "num_seeds": compared.num_seeds,
        "verdict": verdict(compared),
        "measures": {
            row.measure.name: {
                **{name: _numbers(of) for name, of in (("a", row.a), ("b", row.b), ("difference", row.difference))},
                "b_is": row.verdict,
            }
            for row in compared.rows
        },
    }


def _values(runs: Mapping[int, Measured], measure: Measure) -> dict[int, float]:
    """By seed, of the runs that have the measure."""
    return {seed: run.values[measure.name] for seed, run in runs.items() if measure.name in run.values}


def _numbers(of: Estimate | None) -> dict[str, Any] | None:
    return None if of is None else {"mean": of.mean, "interval": of.interval, "num_seeds": of.num_values}


def _mean(of: Estimate | None) -> Cell:
    if of is None:
        return None
    # Counts and sizes are the same for every seed.
    return _number(of.mean, 4) + (f" ± {_number(of.half_width, 2)}" if of.half_width else "")


def _difference(of: Estimate | None) -> Cell:
    if of is None:
        return None
    text = _number(of.mean, 3, sign="+")
    if not of.half_width:
        return text
    assert of.interval is not None
    lower, upper = (_number(end, 3, sign="+") for end in of.interval)
    return f"{text} ({lower} to {upper})"


def _number(value: float, digits: int, sign: str = "") -> str:
    """So many significant digits, and no power of ten where it can be avoided."""
    if not value:
        return "0"
    is_whole = abs(value) >= 10 ** (digits - 1) or value == round(value)
    return f"{value:{sign},.0f}" if is_whole else f"{value:{sign}#.{digits}g}"
