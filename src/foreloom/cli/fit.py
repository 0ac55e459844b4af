"""`foreloom fit`: a model fine-tuned on a table, kept only where it is shown to be better."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import DeviceOption, JsonOption, ModelArgument, or_example, with_table_options
from foreloom.data.tables.options import TableOptions


@with_table_options
def fit(
    model: ModelArgument,
    data: Annotated[
        Path, typer.Argument(help="A table, a folder of tables, or any other data set.", callback=or_example)
    ],
    horizon: Annotated[int, typer.Option(min=1, help="Steps that will be forecast.")],
    out: Annotated[Path, typer.Option(help="The folder to write: the model that was kept, and the report.")],
    minutes: Annotated[float, typer.Option(help="How long it may take, earlier calls included.")] = 10.0,
    season: Annotated[
        int | None, typer.Option(min=1, help="Steps of a season, for Seasonal Naive and MASE (default: by frequency).")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    *,
    table: TableOptions,
) -> None:
    """Fine-tune a model on a table, judge it on windows it never saw, and keep it, or the model as it was.

    The same command goes on with what was stopped.
    """
    from foreloom.files import check_writable
    from foreloom.forecast import from_pretrained
    from foreloom.report.fit_page import PAGE_NAME, fit_table, write_fit_page
    from foreloom.report.tables import print_or_write
    from foreloom.training.signals import exit_code

    check_writable(out / PAGE_NAME, "--out", [data, model])
    say = lambda sentence: typer.echo(sentence, err=True)
    loaded = from_pretrained(model, device=device)
    try:
        found = loaded.fit(data, horizon, out, minutes=minutes, season_length=season, say=say, **vars(table))
    except KeyboardInterrupt as stopped:
        say(f"{stopped or 'stopped; the same command goes on from here'}")
        raise typer.Exit(exit_code(signal.SIGINT)) from None
    page = write_fit_page(found)
    print_or_write(fit_table(found), "json" if as_json else None, None)
    typer.echo(f"wrote {out}; {page.name} in it has the pictures", err=as_json)
