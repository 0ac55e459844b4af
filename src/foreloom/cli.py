"""The verbs: `foreloom train | evaluate | forecast | show | report | data`. Parses, calls, prints; does nothing itself.

Heavy imports stand inside the verbs, so that `foreloom --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="foreloom",
    help="Trains, evaluates and serves sequence foundation models, time series first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Look at and convert data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (chronos2-test).")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Settings on top: training.steps=100 optimizer.learning_rate=1e-4")
]
ModelArgument = Annotated[str, typer.Argument(help="A run folder, a checkpoint, a model folder or a hub id.")]
SLIDING_PANEL = "Every window of a data set"
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, typer.Option(help="The run folder (default: runs/<recipe>).")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in the folder.")
    ] = False,
) -> None:
    """Train or fine-tune the model a recipe describes. Starts alone or under torchrun."""
    from foreloom import run

    result = run.train(recipe, overrides or [], out=out, resume=resume)
    raise typer.Exit(result.exit_code)


@app.command()
def show(
    recipe: Annotated[str | None, typer.Argument(help="A recipe file, or the name of a shipped one.")] = None,
    overrides: OverridesArgument = None,
    from_tsm: Annotated[Path | None, typer.Option(help="Translate a flat TSM-Trainer YAML into a recipe.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="With --from-tsm: on how many devices it was run.")] = 1,
) -> None:
    """Print a recipe as it will run, with a sentence a setting; or translate an old one."""
    from foreloom import run

    if recipe is not None and from_tsm is None:
        typer.echo(run.describe(run.load(recipe, overrides or [], need_data=False)), nl=False)
    elif from_tsm is not None and recipe is None:
        typer.echo(run.translate(from_tsm, devices=devices), nl=False)
    else:
        raise ValueError("give either a recipe or --from-tsm FILE.")


@app.command()
def evaluate(
    model: ModelArgument,
    tasks: Annotated[
        Path | None, typer.Option(help="Score tasks: data, horizons and windows, as YAML.", rich_help_panel="Tasks")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Where the tasks' relative paths start.", rich_help_panel="Tasks")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Or score every window: of a CSV's test rows (ETTh1.csv: the LTSF protocol), or of any data set.",
            rich_help_panel=SLIDING_PANEL,
        ),
    ] = None,
    horizons: Annotated[
        str | None,
        typer.Option(
            "--horizon",
            "-p",
            help="Steps to forecast, comma separated (default: 96,192,336,720 for a CSV, else 96).",
            rich_help_panel=SLIDING_PANEL,
        ),
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(
            "--context-length",
            "-c",
            min=1,
            help="Steps before each window (default: 512, 1024, 2048, 3072 for those horizons, else 4 horizons).",
            rich_help_panel=SLIDING_PANEL,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="standard (default), or timemoe, which leaves out each channel's last window, as published.",
            rich_help_panel=SLIDING_PANEL,
        ),
    ] = None,
    normalization: Annotated[
        str | None,
        typer.Option(
            help="none (default): the model takes the values as they are; context: it normalises each context.",
            rich_help_panel=SLIDING_PANEL,
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            help="Columns of the CSV to score, comma separated (default: all).", rich_help_panel=SLIDING_PANEL
        ),
    ] = None,
    date_column: Annotated[
        str | None,
        typer.Option(help="The CSV's column of times (default: the first, date).", rich_help_panel=SLIDING_PANEL),
    ] = None,
    season: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of a season, for Seasonal Naive (default: by frequency).", rich_help_panel=SLIDING_PANEL
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The CSV to write (default: in the run folder, or NAME-scores.csv).")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows of one forward (default: 256, fewer for contexts above 512 steps).")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Score a model beside naive forecasts: on tasks (--tasks), or on every window of a data set (--data).

    Starts alone or under torchrun, which shares the windows over its processes.
    """
    of_windows = {
        "--horizon": horizons,
        "--context-length": context_length,
        "--protocol": protocol,
        "--normalization": normalization,
        "--channels": channels,
        "--date-column": date_column,
        "--season": season,
    }
    if tasks is not None and data is None:
        _refuse_without_effect(of_windows, "--data", "--tasks, whose file says all that")
        from foreloom.report.scores import evaluate_and_tabulate

        evaluate_and_tabulate(model, tasks, data_root=data_root, out=out, batch_size=batch_size or 256, device=device)
    elif data is not None and tasks is None:
        _refuse_without_effect({"--data-root": data_root}, "--tasks", "--data, which is a path of its own")
        from foreloom.report.sliding import evaluate_windows_and_tabulate, parse_options

        options = parse_options(horizons, context_length, protocol, normalization, channels, date_column, season)
        evaluate_windows_and_tabulate(model, data, options, out=out, batch_size=batch_size, device=device)
    else:
        raise ValueError("give either --tasks FILE or --data FILE: what the model is to be scored on.")


@app.command()
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
    target: Annotated[str, typer.Option(help="Target column(s), comma separated.")] = "target",
    id_column: Annotated[str, typer.Option(help="The column that names the series.")] = "item_id",
    timestamp_column: Annotated[str, typer.Option(help="The column of times.")] = "timestamp",
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
        target=_names(target),
        id_column=id_column,
        timestamp_column=timestamp_column,
        context_length=context_length,
    )
    for path in written:
        typer.echo(f"wrote {path}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write report.html: one page about a run, with nothing outside it."""
    from foreloom.report.page import write_page

    typer.echo(f"wrote {write_page(run)}")


@data_app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A data set in any layout foreloom reads.")],
    context_length: Annotated[int, typer.Option(min=1, help="Context to count usable series for.")] = 512,
    horizon: Annotated[int, typer.Option(min=1, help="Horizon to count usable series for.")] = 64,
    plot: Annotated[Path | None, typer.Option(help="Draw examples and lengths into this PNG.")] = None,
) -> None:
    """Tell what a data set holds: series, lengths, gaps, duplicates, covariates."""
    from foreloom.report.dataset import inspect_and_print

    inspect_and_print(path, context_length=context_length, horizon=horizon, plot=plot)


@data_app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A data set in any layout foreloom reads.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .arrow or .parquet.")],
) -> None:
    """Write a data set as one Arrow file, which is memory-mapped, or as Parquet, which is smaller."""
    from foreloom.data.convert import convert as write

    write(source, out, form="parquet" if out.suffix == ".parquet" else "arrow")
    typer.echo(f"wrote {out}")


def _refuse_without_effect(options: Mapping[str, object], owner: str, other: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: only for {owner}, without effect beside {other}. Leave it out.")


def _names(text: str) -> str | list[str]:
    names = [part.strip() for part in text.split(",")]
    return names[0] if len(names) == 1 else names


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as a sentence, without the line of source it came from."""
    typer.echo(f"warning: {message}", err=True)


def _sentence(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'a file'} could not be written: the disk is full. Free some space."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def main() -> None:
    """Run the command line. What users got wrong ends in a sentence and exit code 2, what they should know in one.

    FORELOOM_TRACEBACK=1 shows the traceback instead.
    """
    warnings.showwarning = _warn
    # Read when torch is imported. Its C++ side warns of what a run does on purpose (parameters a batch leaves out).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("FORELOOM_TRACEBACK"):
            raise
        typer.echo(f"error: {_sentence(error)}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
