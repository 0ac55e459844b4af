"""`foreloom forecast`: a table in, a table of forecasts out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import (
    DateFormatOption,
    DecimalOption,
    DeviceOption,
    IdColumnOption,
    ModelArgument,
    SeparatorOption,
    TargetOption,
    TimestampColumnOption,
    split_names,
)


def forecast(
    model: ModelArgument,
    data: Annotated[Path, typer.Argument(help="CSV or Parquet: item_id, timestamp, target (or unique_id, ds, y).")],
    horizon: Annotated[int, typer.Option(min=1, help="Steps to forecast.")],
    out: Annotated[Path, typer.Option(help="Where to write: .parquet or .csv.")] = Path("forecast.parquet"),
    future: Annotated[Path | None, typer.Option(help="Covariates known ahead, one row a future step.")] = None,
    quantiles: Annotated[
        str | None,
        typer.Option(help="Quantile levels, comma separated (default: 0.1,0.5,0.9; 0.5 for models of single values)."),
    ] = None,
    target: TargetOption = "target",
    id_column: IdColumnOption = "item_id",
    timestamp_column: TimestampColumnOption = "timestamp",
    date_format: DateFormatOption = None,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
    freq: Annotated[
        str | None,
        typer.Option(help="The step between rows: h, D, W, MS ... (default: told from the times). Gaps are closed up."),
    ] = None,
    context_length: Annotated[int | None, typer.Option(min=1, help="Use only the newest steps.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the forecast beside the output file.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Forecast every series of a table."""
    from foreloom.report.forecasts import forecast_and_draw, parse_levels

    written = forecast_and_draw(
        model,
        data,
        out,
        plot=plot,
        device=device,
        future=future,
        prediction_length=horizon,
        quantile_levels=None if quantiles is None else parse_levels(quantiles),
        target=split_names(target),
        id_column=split_names(id_column),
        timestamp_column=timestamp_column,
        date_format=date_format,
        separator=separator,
        decimal=decimal,
        freq=freq,
        context_length=context_length,
    )
    for path in written:
        typer.echo(f"wrote {path}")
