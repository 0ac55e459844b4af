"""`foreloom evaluate`: models beside naive forecasts, on a suite, on tasks, or on every window of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreloom.cli.arguments import FILE, DeviceOption, JsonOption, or_example, with_table_options
from foreloom.cli.subject import Subject, every_window, sliding_options, suite_tasks, tasks_file
from foreloom.data.tables.options import TableOptions, changes

if TYPE_CHECKING:
    from rich.console import Console

    from foreloom.data.text.config import TextSource
    from foreloom.evaluation.result import Evaluation


def _tasks_option(text: str, **settings: Any) -> Any:
    return typer.Option(help=text, rich_help_panel="Tasks", **settings)


def _windows_option(*flags: str, text: str, least: int | None = None, **settings: Any) -> Any:
    return typer.Option(*flags, min=least, help=text, rich_help_panel="Every window of a data set", **settings)


FLAGS_OF_EVALUATORS = {
    "-m": "an argument: foreloom evaluate MODEL ...",
    "--model": "an argument: foreloom evaluate MODEL ...",
    "--model-path": "an argument: foreloom evaluate MODEL ...",
    "-d": "--data FILE",
    "-b": "--batch-size N",
    "--batch_size": "--batch-size N",
    "--benchmarks": "--suite NAME",
    "--datasets-root": "--data-root FOLDER",
    "--output-dir": "--out FILE.csv",
}
"""Flags of Time-MoE's run_eval.py and TSM-Trainer's run_benchmark, and what says the same."""

ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        help="small (comes with foreloom), run folders, checkpoints, model folders, hub ids, chronos:FOLDER-OR-ID for "
        "what chronos-forecasting loads, or seasonal-naive, naive, drift, auto-ets, auto-theta, auto-arima."
    ),
]
SuiteOption = Annotated[
    str | None, _tasks_option("Score the tasks of a suite: chronos-zero-shot, gift-eval, fev-bench, ltsf ...")
]
TasksOption = Annotated[
    Path | None, _tasks_option("Or tasks of your own: data, horizons and windows, as YAML.", callback=or_example)
]
DataRootOption = Annotated[
    Path | None, _tasks_option("Where the suite's data sets lie, or where the tasks' relative paths start.")
]
DataOption = Annotated[
    Path | None,
    _windows_option(
        text="Or score every window: of a CSV's test rows (ETTh1.csv: the LTSF protocol), or of any data set.",
        callback=or_example,
    ),
]
HorizonOption = Annotated[
    str | None,
    _windows_option(
        "--horizon", "-p", text="Steps to forecast, comma separated (default: 96,192,336,720 for a CSV, else 96)."
    ),
]
ContextOption = Annotated[
    int | None,
    _windows_option(
        "--context-length",
        "-c",
        text="Steps before each window (default: 512, 1024, 2048, 3072 for those horizons, else 4 horizons).",
        least=1,
    ),
]
ProtocolOption = Annotated[
    str | None,
    _windows_option(text="standard (default), or timemoe, which leaves out each channel's last window, as published."),
]
NormalizationOption = Annotated[
    str | None,
    _windows_option(
        text="none (default): the model takes the values as they are; context: it normalises each context."
    ),
]
ChannelsOption = Annotated[
    str | None, _windows_option(text="Columns of the CSV to score, comma separated (default: all).")
]
DateColumnOption = Annotated[str | None, _windows_option(text="The CSV's column of times (default: the first, date).")]
SeasonOption = Annotated[
    int | None, _windows_option(text="Steps of a season, for Seasonal Naive (default: by frequency).", least=1)
]
TextColumnOption = Annotated[
    str | None,
    typer.Option(
        help="Of language models: --data is text (.txt, .jsonl, .json, .csv, .tsv, .parquet, .arrow); its column "
        "(default: text). --context-length: most tokens of a row.",
        rich_help_panel="Text",
    ),
]
MessagesColumnOption = Annotated[
    str | None,
    typer.Option(
        help="Of language models: --data holds conversations, in this column, lists of {role, content}; their answers "
        "are scored.",
        rich_help_panel="Text",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        help="The CSV to write (default: in the run folder, or NAME-scores.csv; of language models none).", **FILE
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Rows of one forward (default: 256, fewer for contexts above 512 steps; 8 of language models)."
    ),
]


@with_table_options
def evaluate(
    models: ModelsArgument,
    suite: SuiteOption = None,
    tasks: TasksOption = None,
    data_root: DataRootOption = None,
    data: DataOption = None,
    horizons: HorizonOption = None,
    context_length: ContextOption = None,
    protocol: ProtocolOption = None,
    normalization: NormalizationOption = None,
    channels: ChannelsOption = None,
    date_column: DateColumnOption = None,
    season: SeasonOption = None,
    text_column: TextColumnOption = None,
    messages_column: MessagesColumnOption = None,
    out: OutOption = None,
    batch_size: BatchSizeOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    *,
    table: TableOptions,
) -> None:
    """Score models beside Seasonal Naive: on a suite, on tasks, or on every window of a data set; language models on a
    text.

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
    of_table = {f"--{name.replace('_', '-')}": value for name, value in changes(table).items()}
    if data is not None:
        _refuse_without_effect({"--data-root": data_root}, "--suite and --tasks", "--data, which is a path of its own")
    if data is not None and (folders := _language_models(models)):
        from foreloom.data.text.config import TextSource

        idle = {name: value for name, value in of_windows.items() if name != "--context-length"}
        _refuse_without_effect(idle | of_table, "series", "a language model")
        if text_column is not None and messages_column is not None:
            raise ValueError("--text-column and --messages-column exclude one another; --data holds texts or chats.")
        source = TextSource(path=str(data), text_column=text_column or "text", messages_column=messages_column)
        _score_text(folders, source, context_length, out=out, batch_size=batch_size, device=device, as_json=as_json)
        return
    of_text = {"--text-column": text_column, "--messages-column": messages_column}
    _refuse_without_effect(of_text, "language models on --data", "series")
    if data is None:
        _refuse_without_effect(of_windows | of_table, "--data", f"{given[0]}, which says all that")
    find: Callable[[], Subject]
    if suite is not None:
        find = partial(suite_tasks, suite, data_root)
    elif tasks is not None:
        find = partial(tasks_file, tasks, data_root)
    else:
        assert data is not None
        find = partial(every_window, data, sliding_options(of_windows, table))
    _score_and_publish(models, find, out=out, batch_size=batch_size, device=device, as_json=as_json)


def _language_models(models: Sequence[str]) -> Mapping[str, Path] | None:
    from foreloom.evaluation.text import language_models

    return language_models(models)


def _score_text(
    folders: Mapping[str, Path],
    source: TextSource,
    max_seq_length: int | None,
    *,
    out: Path | None,
    batch_size: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Score each model; print a table, or its JSON alone, and write it where `out` is given. Collective under
    torchrun."""
    import json

    from rich.console import Console
    from rich.table import Table

    from foreloom.distributed.process import among_ranks, start
    from foreloom.evaluation.text import score_text
    from foreloom.files import check_writable
    from foreloom.forecast.asked import find_device
    from foreloom.report.scores import write_rows

    if out is not None and out.suffix != ".csv":
        raise ValueError(f"--out {out}: scores are written as .csv; name a .csv.")
    if out is not None:
        check_writable(out, "--out", [source.name])
    with among_ranks():
        process = start("cpu")
        settings = {"max_seq_length": max_seq_length, "batch_size": batch_size or 8, "device": find_device(device)}
        scores = {label: score_text(folder, source, process=process, **settings) for label, folder in folders.items()}
    if not process.is_main:
        return
    first = next(iter(scores.values()))
    name = Path(source.name).name
    what = "documents" if source.messages_column is None else "conversations"
    left_out = "".join(f", {num:,} left out ({reason})" for reason, num in first.left_out.items() if num)
    table = Table(title=f"{name}: {first.num_documents:,} {what}{left_out}")
    for column in ("model", "tokens", "loss", "perplexity", "bits per byte"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for label, its in scores.items():
        table.add_row(
            label, f"{its.num_tokens:,}", f"{its.loss:.4f}", f"{its.perplexity:.3f}", f"{its.bits_per_byte:.4f}"
        )
    figures = ("loss", "perplexity", "bits_per_byte", "num_tokens")
    rows = [
        {"task": name, "model": label, **{name: getattr(its, name) for name in figures}}
        for label, its in scores.items()
    ]
    if as_json:
        counts = {"num_documents": first.num_documents, "left_out": dict(first.left_out)}
        typer.echo(json.dumps(counts | {"rows": rows}, indent=2, ensure_ascii=False))
    else:
        Console().print(table)
    if out is not None:
        write_rows(rows, out)
        typer.echo(f"wrote {out}", err=as_json)


def _refuse_without_effect(options: Mapping[str, object], owner: str, other: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: only for {owner}, without effect beside {other}. Leave it out.")


def _score_and_publish(
    models: Sequence[str],
    find: Callable[[], Subject],
    *,
    out: Path | None,
    batch_size: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Collective under torchrun, SLURM and MPI: the ranks share the windows, rank 0 speaks, prints and writes.

    They exchange sums by way of the host only, so whatever device the model is on, gloo serves.
    """
    from rich.console import Console

    from foreloom.distributed.process import among_ranks, prepare, start
    from foreloom.distributed.reduce import from_rank_zero
    from foreloom.evaluation.by_name import forecasters_by_name
    from foreloom.evaluation.evaluate import evaluate_all
    from foreloom.evaluation.ranks import Ranks
    from foreloom.files import check_writable
    from foreloom.forecast.asked import find_device
    from foreloom.monitoring.progress import Progress
    from foreloom.report.scores import default_csv

    def prepared() -> tuple[Subject, Path]:
        subject = find()
        csv_path = out or default_csv(models, subject.name)
        if csv_path.suffix != ".csv":
            raise ValueError(
                f"--out {csv_path}: scores are written as .csv, table and pictures beside it; name a .csv."
            )
        check_writable(csv_path, "--out", subject.read)
        return subject, csv_path

    with among_ranks():
        subject, csv_path = prepare(prepared)
        process = start("cpu")
        console = Console(quiet=not process.is_main)
        told = partial(Progress, is_shown=process.is_main)
        evaluator = partial(evaluate_all, batch_size=batch_size, ranks=Ranks.of(process), progress=told)
        evaluation = subject.evaluate(forecasters_by_name(models, find_device(device)), evaluator=evaluator)
        from_rank_zero(lambda: _publish(evaluation, subject, csv_path, console, as_json), process)


def _publish(evaluation: Evaluation, subject: Subject, csv_path: Path, console: Console, as_json: bool) -> None:
    """Print the table and the notes, or its JSON alone; then write CSV, Markdown and pictures of forecasts."""
    from foreloom.report.evaluation_table import table_of
    from foreloom.report.scores import write_scores
    from foreloom.report.tables import print_whole

    notes = [*subject.notes, *evaluation.notes]
    table = table_of(evaluation.rows, subject.metrics)
    title = f"{', '.join(evaluation.examples)} on {subject.title}{subject.setting}"
    say = partial(console.print, highlight=False, soft_wrap=True, markup=False)
    if as_json:
        print(replace(table, title=title, notes=tuple(notes)).to_json(), end="")
    else:
        print_whole(console, table.to_rich(), title)
        for note in notes:
            say(f"note: {note}")
    try:
        write_scores(evaluation, table, csv_path, notes=notes)
    except OSError as error:
        raise ValueError(
            f"--out {csv_path}: {error.filename or 'a file'} could not be written ({error.strerror or error}). The "
            "table above is what was found; free some space, or name another place."
        ) from error
    if not as_json:
        say(f"wrote {csv_path}; the table as Markdown and forecast pictures are beside it")
