"""`foreloom data inspect`: what a data set holds, for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foreloom.data.inspect import DataReport
    from foreloom.data.tables.read import TableOptions


def inspect_and_print(
    path: Path, *, context_length: int, horizon: int, plot: Path | None = None, table: TableOptions
) -> None:
    """Inspect a data set, print what was found and, with `plot`, draw examples and lengths as PNG or SVG."""
    from rich.console import Console

    from foreloom.data.inspect import inspect
    from foreloom.data.reader import open_source
    from foreloom.report.figures import dataset_figure
    from foreloom.report.style import save_figure

    report = inspect(path, context_length=context_length, prediction_length=horizon, table=table)
    console = Console()
    width = max(map(len, facts(report, context_length, horizon)))
    for label, text in facts(report, context_length, horizon).items():
        console.print(f"[bold]{label:<{width}}[/]  {text}", highlight=False, soft_wrap=True)
    if plot is not None:
        examples = {example.item_id: (example.steps, example.values) for example in report.examples}
        save_figure(dataset_figure(examples, open_source(path, table=table).lengths), plot)
        console.print(f"wrote {plot}", highlight=False, soft_wrap=True)


def facts(report: DataReport, context_length: int, horizon: int) -> dict[str, str]:
    """Label -> sentence; what is not there (covariates, missing values) says so."""
    low, _, median, _, high = report.length_quantiles.values()
    fewest, most = report.variates
    rows = {
        "data set": f"{report.path} ({report.layout}, {report.num_bytes / 1e6:,.1f} MB mapped)",
        "series": f"{report.num_series:,}, {_span(fewest, most)} variate{'s' if most > 1 else ''} each",
        "points": f"{report.num_points:,}",
        "length": f"{low:,} to {high:,} steps, median {median:,}" if low != high else f"{low:,} steps",
        "frequency": ", ".join(f"{freq} ({count:,})" for freq, count in report.freqs.items()),
        "missing": f"{report.num_missing:,} ({report.missing_share:.2%})",
        "not finite": f"{report.num_non_finite:,}",
        "constant": f"{report.num_constant:,} series",
        "duplicates": f"{report.num_duplicates:,} series equal an earlier one",
        "covariates": _covariates(report),
        "usable": f"{report.num_usable:,} series for a horizon of {horizon:,}; "
        f"{report.num_full_context:,} fill a context of {context_length:,}",
    }
    if report.num_inspected < report.num_series:
        rows["looked at"] = f"{report.num_inspected:,} series, chosen evenly; counts above are of these"
    return rows


def _span(fewest: int, most: int) -> str:
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def _covariates(report: DataReport) -> str:
    kinds = {"past": report.past, "known ahead": report.future, "static": report.static}
    parts = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
    if report.categorical:
        parts.append(f"categorical among them: {', '.join(report.categorical)}")
    return "; ".join(parts) or "none"
