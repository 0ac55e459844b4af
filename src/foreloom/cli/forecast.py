"""`foreloom forecast`: a table in, a table of forecasts out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreloom.cli.arguments import FILE, DeviceOption, LookbacksOption, ModelArgument, or_example, with_table_options
from foreloom.data.tables.options import TableOptions

if TYPE_CHECKING:
    import pandas as pd


@with_table_options
def forecast(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Argument(
            help="A table, or a folder of tables: item_id, timestamp, target (or unique_id, ds, y).",
            callback=or_example,
        ),
    ],
    horizon: Annotated[int, typer.Option(min=1, help="Steps to forecast.")],
    out: Annotated[Path, typer.Option(help="Where to write: .parquet or .csv.", **FILE)] = Path("forecast.parquet"),
    future: Annotated[Path | None, typer.Option(help="Covariates known ahead, one row a future step.")] = None,
    quantiles: Annotated[
        str | None,
        typer.Option(help="Quantile levels, comma separated (default: 0.1,0.5,0.9; 0.5 for models of single values)."),
    ] = None,
    context_length: Annotated[int | None, typer.Option(min=1, help="Use only the newest steps.")] = None,
    lookbacks: LookbacksOption = None,
    non_negative: Annotated[bool, typer.Option("--non-negative", help="Forecast nothing below 0.")] = False,
    integer: Annotated[bool, typer.Option("--integer", help="Forecast whole numbers, for counts.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the forecast beside the output file.")] = False,
    device: DeviceOption = "auto",
    *,
    table: TableOptions,
) -> None:
    """Forecast every series of a table."""
    from foreloom.forecast import forecast_file, from_pretrained
    from foreloom.monitoring.progress import Progress

    levels = None if quantiles is None else parse_levels(quantiles)
    forecasts = forecast_file(
        from_pretrained(model, device=device, lookbacks=lookbacks),
        data,
        out,
        future=future,
        prediction_length=horizon,
        quantile_levels=levels,
        context_length=context_length,
        non_negative=non_negative,
        integer=integer,
        say=lambda sentence: typer.echo(sentence, err=True),
        progress=Progress,
        **vars(table),
    )
    picture = _draw(data, table, forecasts, out.with_suffix(".png")) if plot else None
    for path in (out, picture):
        if path is not None:
            typer.echo(f"wrote {path}")


def parse_levels(text: str) -> list[float]:
    """Quantile levels as typed: comma separated, each between 0 and 1; ascending in the answer."""
    try:
        levels = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"quantiles {text!r}: write levels between 0 and 1, comma separated: 0.1,0.5,0.9.") from None
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"quantiles {text!r}: every level must lie between 0 and 1.")
    return levels


def _draw(data: Path, table: TableOptions, forecasts: pd.DataFrame, picture: Path) -> Path:
    """The first few series with their history, read once more from the table."""
    from foreloom.forecast.files import rows_of_file
    from foreloom.report.figures import forecast_figure, panels_of
    from foreloom.report.style import save_figure

    return save_figure(forecast_figure(panels_of(rows_of_file(data, table), forecasts)), picture)
