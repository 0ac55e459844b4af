"""`foreloom backtest`: how well a model would have forecast the past of a table, window by window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import (
    FILE,
    DeviceOption,
    JsonOption,
    LookbacksOption,
    ModelArgument,
    or_example,
    with_table_options,
)
from foreloom.data.tables.options import TableOptions


@with_table_options
def backtest(
    model: ModelArgument,
    data: Annotated[
        Path, typer.Argument(help="A table, a folder of tables, or any other data set.", callback=or_example)
    ],
    horizon: Annotated[int, typer.Option(min=1, help="Steps to forecast.")],
    windows: Annotated[int, typer.Option(min=1, help="Windows of each series; the newest ends it.")] = 3,
    step: Annotated[
        int | None, typer.Option(min=1, help="Steps from one window to the next (default: the horizon).")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where to write the forecasts: .parquet or .csv; scores go beside them.", **FILE)
    ] = Path("backtest.parquet"),
    quantiles: Annotated[
        str | None,
        typer.Option(help="Quantile levels, comma separated (default: 0.1,0.5,0.9; 0.5 for models of single values)."),
    ] = None,
    season: Annotated[
        int | None, typer.Option(min=1, help="Steps of a season, for Seasonal Naive and MASE (default: by frequency).")
    ] = None,
    context_length: Annotated[int | None, typer.Option(min=1, help="Use only the newest steps.")] = None,
    lookbacks: LookbacksOption = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw forecasts and errors by step.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    *,
    table: TableOptions,
) -> None:
    """Forecast rolling windows of every series from what came before them, and score them beside Seasonal Naive."""
    from foreloom.cli.forecast import parse_levels
    from foreloom.files import check_writable
    from foreloom.forecast import from_pretrained, write_table
    from foreloom.forecast.cross_validation import MODEL
    from foreloom.forecast.files import suffix_of
    from foreloom.monitoring.progress import Progress
    from foreloom.report.backtest import backtest_table, steps_figure, windows_figure
    from foreloom.report.style import save_figure
    from foreloom.report.tables import print_or_write

    suffix_of(out)  # before the forecasts are paid for
    scores = out.with_name(f"{out.name.partition('.')[0]}-scores.csv")
    for path in (out, scores):
        check_writable(path, "--out", [data])
    found = from_pretrained(model, device=device, lookbacks=lookbacks).cross_validation(
        data,
        horizon,
        windows,
        None if quantiles is None else parse_levels(quantiles),
        step=step,
        season_length=season,
        context_length=context_length,
        progress=Progress,
        **vars(table),
    )
    write_table(found.forecasts, out)
    write_table(found.scores, scores)
    written = [out, scores]
    if plot:
        pictures = {"": windows_figure(found.kept, MODEL), "-steps": steps_figure(found.kept)}
        written += [
            save_figure(figure, out.with_name(f"{out.name.partition('.')[0]}{ending}.png"))
            for ending, figure in pictures.items()
        ]
    title = f"{data.name}: windows of {horizon:,} steps, {windows:,} a series"
    shown = backtest_table(found.kept.scores("all"), title, [f"note: {note}" for note in found.notes])
    print_or_write(shown, "json" if as_json else None, None)
    for path in written:
        typer.echo(f"wrote {path}", err=as_json)
