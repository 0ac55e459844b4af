"""`foreloom data`: look at, convert, fetch and make data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreloom.cli.arguments import (
    DateFormatOption,
    DecimalOption,
    IdColumnOption,
    SeparatorOption,
    TargetOption,
    TimestampColumnOption,
    split_names,
)

if TYPE_CHECKING:
    from foreloom.data.tables.read import TableOptions

data_app = typer.Typer(help="Look at, convert, fetch and make data sets.", no_args_is_help=True)


@data_app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A data set in any layout foreloom reads.")],
    context_length: Annotated[int, typer.Option(min=1, help="Context to count usable series for.")] = 512,
    horizon: Annotated[int, typer.Option(min=1, help="Horizon to count usable series for.")] = 64,
    plot: Annotated[Path | None, typer.Option(help="Draw examples and lengths into this PNG.")] = None,
    id_column: IdColumnOption = "item_id",
    timestamp_column: TimestampColumnOption = "timestamp",
    target: TargetOption = "target",
    date_format: DateFormatOption = None,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
) -> None:
    """Tell what a data set holds: series, lengths, gaps, duplicates, covariates."""
    from foreloom.report.dataset import inspect_and_print

    table = _table(id_column, timestamp_column, target, date_format, separator, decimal)
    inspect_and_print(path, context_length=context_length, horizon=horizon, plot=plot, table=table)


@data_app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A data set in any layout foreloom reads.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .arrow or .parquet.")],
    id_column: IdColumnOption = "item_id",
    timestamp_column: TimestampColumnOption = "timestamp",
    target: TargetOption = "target",
    date_format: DateFormatOption = None,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
) -> None:
    """Write a data set as one Arrow file, which is memory-mapped, or as Parquet, which is smaller."""
    from foreloom.data.convert import convert as write

    table = _table(id_column, timestamp_column, target, date_format, separator, decimal)
    write(source, out, form="parquet" if out.suffix == ".parquet" else "arrow", table=table)
    typer.echo(f"wrote {out}")


def _table(id_column: str, timestamp_column: str, target: str, *text: str | None) -> TableOptions:
    """The options that say what a table does not; `text` is the date format, the separator and the decimal point."""
    from foreloom.data.tables.read import TableOptions

    ids, targets = tuple(split_names(id_column)), tuple(split_names(target))
    return TableOptions(ids, timestamp_column, targets, *text)


@data_app.command()
def synth(
    process: Annotated[str, typer.Argument(help="A process (kernel, patterns ...); none: list them all.")] = "",
    settings: Annotated[list[str] | None, typer.Argument(help="Its settings: max_kernels=3")] = None,
    num_series: Annotated[int, typer.Option(min=1, help="How many series.")] = 100,
    length: Annotated[str | None, typer.Option(help="Steps of each: a number, or a range such as 128..2048.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other series.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The file to write: .arrow or .parquet.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw some of the series (.svg, .png, .pdf).")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List all processes and their settings.")] = False,
) -> None:
    """Write synthetic series, the same that the address synth://PROCESS streams into training."""
    from foreloom.report.synthetic import print_processes, synth_and_print

    if list_all or not process:
        print_processes()
        return
    synth_and_print(process, settings or [], num_series=num_series, length=length, seed=seed, out=out, plot=plot)


@data_app.command()
def fetch(
    suite: Annotated[str, typer.Argument(help="A suite (chronos-lite, gift-eval ...), or a YAML file of one.")],
    out: Annotated[Path, typer.Option(help="The data root: each data set gets a folder below it.")],
    only: Annotated[str, typer.Option(help="Names of data sets, comma separated (default: all).")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what is missing and its size.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare what is there with its checksums.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Fetch again what is there.")] = False,
) -> None:
    """Download the data sets of a suite from the Hugging Face hub; killed, it goes on where it was."""
    from foreloom.report.fetching import fetch_and_print

    if not fetch_and_print(suite, out, only=split_names(only), dry_run=dry_run, check=verify, overwrite=overwrite):
        raise typer.Exit(1)


@data_app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    step: Annotated[int, typer.Argument(min=1, help="The optimizer step whose batch to rebuild.")],
    out: Annotated[Path | None, typer.Option(help="Write all its windows into this CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the most suspicious windows (.png, .svg, .pdf).")] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Add the series of --samples to this file, for data.quarantine.")
    ] = None,
    samples: Annotated[str, typer.Option(help="Samples of the batch, comma separated, as the table shows them.")] = "",
) -> None:
    """Rebuild the batch of a training step and show its windows, the most suspicious first."""
    from foreloom.report.replay import replay_and_print

    numbers = split_names(samples)
    if not all(number.isdecimal() for number in numbers):
        raise ValueError(f"--samples {samples!r}: write whole numbers, comma separated: 1204,1210.")
    replay_and_print(run, step, out=out, plot=plot, quarantine=quarantine, samples=[int(number) for number in numbers])
