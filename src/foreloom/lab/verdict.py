"""Is B better than A? Measures of both over seeds, their paired differences with intervals, as a table, a sentence,
JSON and a figure.

Intervals are Student's (1908): mean ± t(n - 1) * s / sqrt(n), s with n - 1 in the denominator.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from foreloom.lab.runs import Outcome
from foreloom.report.figures import panel_grid, panel_title, step_axis
from foreloom.report.style import BLUE, ORANGE, styled
from foreloom.report.tables import Cell, Column, ScoreTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFIDENCE = 0.95
LOSS, WQL = "loss", "wql"
LEFT_OUT = 0.1
"""Share of a run at its beginning that is not drawn: the loss falls so far there that the rest would look flat."""
_ROUNDING = 1e-12


class Measure(NamedTuple):
    """A row of the table."""

    label: str
    better: str = ""
    """`lower` or `higher`; empty for what is neither good nor bad."""


MEASURES = {
    LOSS: Measure("Held-out loss", "lower"),
    WQL: Measure("Held-out WQL", "lower"),
    "wql_relative": Measure("WQL relative to Seasonal Naive", "lower"),
    "num_steps": Measure("Steps"),
    "tera_flops": Measure("FLOPs, 1e12"),
    "million_parameters": Measure("Parameters, millions"),
    "training_seconds": Measure("Seconds of training", "lower"),
    "rows_per_second": Measure("Rows a second", "higher"),
    "time_steps_per_second": Measure("Time steps a second", "higher"),
    "peak_mebibytes": Measure("Peak memory, MiB", "lower"),
    "device_peak_mebibytes": Measure("Peak device memory, MiB", "lower"),
    "expert_entropy": Measure("Expert usage, entropy"),
    "dead_experts": Measure("Experts never used"),
}
"""By their names in ab.json. Rows that no run has are left out."""

Values = Mapping[str, float]
"""Of a run: by name of a measure, those it has."""


FEWEST_SEEDS = 3
"""Of two, Student's interval reaches nine deviations to either side: it says nothing."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    half_width: float | None
    """Of the interval around it; None for fewer than `FEWEST_SEEDS` values, whose spread nobody knows."""
    num_values: int

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def sign(self) -> int:
        """-1 or 1 where the whole interval lies below or above 0; 0 where it holds 0, or is not known."""
        lower, upper = self.interval or (0, 0)
        return -1 if upper < 0 else int(lower > 0)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent measurements, of which there must be one, with its interval."""
    num_values, mean = len(values), math.fsum(values) / len(values)
    if num_values < FEWEST_SEEDS:  # two that are equal, too: by chance, for all one knows
        return Estimate(mean, None, num_values)
    deviation = statistics.stdev(values)
    if deviation <= _ROUNDING * max(map(abs, values)):  # what does not depend on the seed, but for its last digits
        return Estimate(mean, 0.0, num_values)
    from scipy import stats

    t = float(stats.t.ppf(0.5 + CONFIDENCE / 2, num_values - 1))
    return Estimate(mean, t * deviation / math.sqrt(num_values), num_values)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Of b - a, pair by pair: what a seed does to both (initial values, order of the data) does not widen it."""
    return estimate([second - first for first, second in zip(a, b, strict=True)])


@dataclass(frozen=True)
class Row:
    """One measure of both recipes. An estimate is None where no run of that recipe has the measure."""

    name: str
    a: Estimate | None
    b: Estimate | None
    difference: Estimate | None
    """B - A, of the seeds with which both have finished."""

    @property
    def verdict(self) -> str:
        """`better` or `worse` (of B) where the interval of the difference leaves out 0; why not, where it does not."""
        better = MEASURES[self.name].better
        if self.difference is None or not better:
            return ""
        if self.difference.half_width is None:
            return _seeds(self.difference.num_values)
        if not self.difference.sign:
            return "unclear"
        return "better" if (self.difference.sign < 0) == (better == "lower") else "worse"


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
        by_name = {row.name: row for row in self.rows if row.difference is not None}
        return by_name.get(LOSS) or by_name.get(WQL)

    @property
    def is_worse(self) -> bool:
        """Is B worse than A, and not by chance?"""
        return self.decisive is not None and self.decisive.verdict == "worse"


def compare(
    title: str, names: tuple[str, str], a: Mapping[int, Values], b: Mapping[int, Values], *, loss_is_same: bool
) -> Compared:
    """Lay out the finished runs of both, by seed. Unless `loss_is_same`, the losses are shown and not compared."""
    rows = []
    for name in MEASURES:
        of_a, of_b = ({seed: values[name] for seed, values in of.items() if name in values} for of in (a, b))
        if not of_a and not of_b:
            continue
        seeds = sorted(of_a.keys() & of_b.keys()) if loss_is_same or name != LOSS else []
        rows.append(
            Row(
                name,
                estimate(list(of_a.values())) if of_a else None,
                estimate(list(of_b.values())) if of_b else None,
                paired_difference([of_a[s] for s in seeds], [of_b[s] for s in seeds]) if seeds else None,
            )
        )
    return Compared(title, names, len(a.keys() & b.keys()), tuple(rows))


def table_of(compared: Compared, notes: Sequence[str] = ()) -> ScoreTable:
    """Measure, A, B, their difference, what it says of B; the verdict and `notes` below."""
    columns = [Column("Measure", "text"), *(Column(name, "score") for name in compared.names)]
    columns += [Column("Difference", "score"), Column("Verdict", "text")]
    rows: list[list[Cell]] = [
        [MEASURES[row.name].label, _mean(row.a), _mean(row.b), _difference(row.difference), row.verdict]
        for row in compared.rows
    ]
    explained = (
        f"Means over {compared.num_seeds} seeds ± {CONFIDENCE:.0%} intervals (Student's t). Difference: B - A, seed by "
        "seed; better and worse are said of B where its interval leaves out 0."
        if compared.num_seeds >= FEWEST_SEEDS
        else f"Difference: B - A, of {_seeds(compared.num_seeds)}. It has no interval and may be chance; --seeds 3 "
        "tells more."
    )
    return ScoreTable(columns, rows, [], compared.title, (sentence(compared), explained, *notes))


def sentence(compared: Compared) -> str:
    """Is B better?"""
    row = compared.decisive
    if row is None:
        return "No seed with which both recipes have finished: nothing can be said."
    assert row.difference is not None
    difference, label = row.difference, MEASURES[row.name].label
    label = label[0].lower() + label[1:]
    size = f"the {label} of B is {_number(abs(difference.mean), 3)} {'lower' if difference.mean < 0 else 'higher'}"
    if difference.mean == 0:
        size = f"the {label} of B is no higher and no lower"
    if difference.interval is None:
        return f"Of {_seeds(difference.num_values)}, {size} than that of A."
    found = f"{size} than that of A ({CONFIDENCE:.0%} interval of B - A: {_span(difference.interval)})"
    if row.verdict == "unclear":
        return f"A and B cannot be told apart: {found}."
    return f"B is {row.verdict}: {found}."


def _seeds(num: int) -> str:
    return {0: "no seed", 1: "one seed"}.get(num, f"{num} seeds")


def as_data(compared: Compared) -> dict[str, Any]:
    """For ab.json."""
    return {
        "title": compared.title,
        "num_seeds": compared.num_seeds,
        "verdict": sentence(compared),
        "measures": {
            row.name: {
                **{name: _numbers(of) for name, of in (("a", row.a), ("b", row.b), ("difference", row.difference))},
                "b_is": row.verdict,
            }
            for row in compared.rows
        },
    }


class Panel(NamedTuple):
    """A comparison to be drawn."""

    title: str
    a: Sequence[Outcome]
    b: Sequence[Outcome]
    over_flops: bool
    """In place of steps: where those are what both get the same of."""
    names: tuple[str, str]


@styled
def loss_figure(panels: Sequence[Panel]) -> Figure:
    """The held-out loss as it falls: a line for the mean over seeds, a band from the lowest to the highest."""
    from matplotlib.ticker import EngFormatter

    figure, axes = panel_grid(1, len(panels))
    for ax, panel in zip(axes, panels, strict=True):
        panel_title(ax, panel.title)
        a, b = panel.names
        for name, runs, colour in ((f"A: {a}", panel.a, BLUE), (f"B: {b}", panel.b, ORANGE)):
            if runs:
                _draw(ax, name, runs, colour, over_flops=panel.over_flops)
        step_axis(ax)
        if panel.over_flops:
            ax.set_xlabel("FLOPs")
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.legend(loc="best")
    return figure


def mean_curve(runs: Sequence[Outcome]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps that every run has, but the first, and the mean, the lowest and the highest loss there."""
    curves = [{step: math.nan if loss is None else loss for step, loss in run.curve} for run in runs]
    shared = set.intersection(*map(set, curves))
    steps = sorted(step for step in shared if step >= LEFT_OUT * max(shared))
    losses = [[curve[step] for curve in curves] for step in steps]
    return steps, [sum(of) / len(of) for of in losses], [min(of) for of in losses], [max(of) for of in losses]


def _draw(ax: Axes, name: str, runs: Sequence[Outcome], colour: str, *, over_flops: bool) -> None:
    steps, mean, low, high = mean_curve(runs)
    assert runs[0].flops is not None and runs[0].num_steps
    x = [step * runs[0].flops / runs[0].num_steps for step in steps] if over_flops else steps
    ax.plot(x, mean, color=colour, linewidth=1.7, marker="o" if len(x) < 3 else None, label=name, clip_on=False)
    if len(runs) > 1:
        ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


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
    return _number(of.mean, 3, sign="+") + (f" ({_span(of.interval)})" if of.interval and of.half_width else "")


def _span(interval: tuple[float, float]) -> str:
    lower, upper = (_number(end, 3, sign="+") for end in interval)
    return f"{lower} to {upper}"


def _number(value: float, digits: int, sign: str = "") -> str:
    """So many significant digits, and no power of ten where it can be avoided."""
    if not value:
        return "0"
    text = f"{value:{sign}#.{digits}g}"
    is_whole = abs(value) >= 10 ** (digits - 1) or value == round(value) or text.endswith(".")  # 99.96 is 100.
    return f"{value:{sign},.0f}" if is_whole else text
