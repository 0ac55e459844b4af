"""`foreloom evaluate`: models beside naive forecasts, on a suite, on tasks, or on every window of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from foreloom.cli.arguments import DeviceOption

TASKS_PANEL = "Tasks"
WINDOWS_PANEL = "Every window of a data set"


def _tasks_option(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=TASKS_PANEL)


def _windows_option(*flags: str, text: str, least: int | None = None) -> Any:
    return typer.Option(*flags, min=least, help=text, rich_help_panel=WINDOWS_PANEL)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, checkpoints, model folders, hub ids, chronos:FOLDER-OR-ID for what chronos-forecasting "
            "loads, or seasonal-naive, naive, drift, auto-ets, auto-theta, auto-arima."
        ),
    ],
    suite: Annotated[
        str | None, _tasks_option("Score the tasks of a suite: chronos-zero-shot, gift-eval, fev-bench, ltsf ...")
    ] = None,
    tasks: Annotated[Path | None, _tasks_option("Or tasks of your own: data, horizons and windows, as YAML.")] = None,
    data_root: Annotated[
        Path | None, _tasks_option("Where the suite's data sets lie, or where the tasks' relative paths start.")
    ] = None,
    data: Annotated[
        Path | None,
        _windows_option(
            text="Or score every window: of a CSV's test rows (ETTh1.csv: the LTSF protocol), or of any data set."
        ),
    ] = None,
    horizons: Annotated[
        str | None,
        _windows_option(
            "--horizon",
            "-p",
            text="Steps to forecast, comma separated (default: 96,192,336,720 for a CSV, else 96).",
        ),
    ] = None,
    context_length: Annotated[
        int | None,
        _windows_option(
            "--context-length",
            "-c",
            text="Steps before each window (default: 512, 1024, 2048, 3072 for those horizons, else 4 horizons).",
            least=1,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        _windows_option(
            text="standard (default), or timemoe, which leaves out each channel's last window, as published."
        ),
    ] = None,
    normalization: Annotated[
        str | None,
        _windows_option(
            text="none (default): the model takes the values as they are; context: it normalises each context."
        ),
    ] = None,
    channels: Annotated[
        str | None, _windows_option(text="Columns of the CSV to score, comma separated (default: all).")
    ] = None,
    date_column: Annotated[
        str | None, _windows_option(text="The CSV's column of times (default: the first, date).")
    ] = None,
    season: Annotated[
        int | None, _windows_option(text="Steps of a season, for Seasonal Naive (default: by frequency).", least=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The CSV to write (default: in the run folder, or NAME-scores.csv).")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows of one forward (default: 256, fewer for contexts above 512 steps).")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Score models beside Seasonal Naive: on a suite, on tasks, or on every window of a data set.

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
    given = [name for name, value in (("--suite", suite), ("--tasks", tasks), ("--data", data)) if value is not None]
    if len(given) != 1:
        found = f"; {' and '.join(given)} exclude one another" if given else ""
        raise ValueError(f"give --suite NAME, --tasks FILE or --data FILE: what to score on{found}.")
    if data is not None:
        _refuse_without_effect({"--data-root": data_root}, "--suite and --tasks", "--data, which is a path of its own")
        from foreloom.report.sliding import evaluate_windows_and_tabulate, parse_options

        options = parse_options(horizons, context_length, protocol, normalization, channels, date_column, season)
        evaluate_windows_and_tabulate(models, data, options, out=out, batch_size=batch_size, device=device)
        return
    _refuse_without_effect(of_windows, "--data", f"{given[0]}, which says all that")
    if suite is not None:
        from foreloom.report.suite_scores import evaluate_suite_and_tabulate

        evaluate_suite_and_tabulate(models, suite, data_root, out=out, batch_size=batch_size, device=device)
    elif tasks is not None:
        from foreloom.report.scores import evaluate_and_tabulate

        evaluate_and_tabulate(models, tasks, data_root=data_root, out=out, batch_size=batch_size, device=device)


def _refuse_without_effect(options: Mapping[str, object], owner: str, other: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: only for {owner}, without effect beside {other}. Leave it out.")
