"""`foreloom data audit`: what of a benchmark lies in training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreloom.cli.arguments import FILE, JsonOption, check_places, or_example, with_table_options
from foreloom.cli.data import data_app
from foreloom.data.tables.options import TableOptions

if TYPE_CHECKING:
    from foreloom.audit.benchmark import Benchmark

MAX_SHOWN = 20
"""Overlaps on the console, the longest."""


@data_app.command(epilog="Example: foreloom data audit quickstart --against examples/tasks.yaml")
@with_table_options
def audit(
    train: Annotated[
        Path, typer.Argument(help="A recipe, a run folder, or a data set in any layout.", callback=or_example)
    ],
    against: Annotated[
        list[Path], typer.Option(help="A file of tasks (.yaml), the name of a suite, or data; again for more data.")
    ],
    data_root: Annotated[Path | None, typer.Option(help="Where the data of the tasks or the suite lie.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the series that overlap as a list for data.exclude.", **FILE)
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Write the overlap into the model card of this run, checkpoint or model folder.")
    ] = None,
    as_json: JsonOption = False,
    *,
    table: TableOptions,
) -> None:
    """Find stretches of a benchmark in training data, by content: also rescaled, flipped, reversed or averaged ones."""
    import dataclasses
    import json

    from foreloom.audit.audit import audit, blocked
    from foreloom.audit.training import training_rows
    from foreloom.checkpoint.export import add_to_card
    from foreloom.checkpoint.locate import find_model_folder
    from foreloom.config.shipped import find_example
    from foreloom.data.stream.selection import write_excluded
    from foreloom.files import strict_json
    from foreloom.monitoring.progress import Progress
    from foreloom.report.audit import card_section, overlaps_table, tasks_table
    from foreloom.report.tables import print_or_write

    check_places([train, *against], files={"--out": out})
    if card is not None and not card.is_dir():
        raise ValueError(f"--card {card}: there is no such folder. Give a run, a checkpoint or a model folder.")
    folder = None if card is None else find_model_folder(card)
    benchmark, said = _benchmark([find_example(one) for one in against], data_root, table)
    training, notes = training_rows(train, table)
    with Progress("Comparing") as progress:
        found = audit(training, benchmark, lambda rows, total: progress.over(rows, total, "series"))
    notes = [*said, *notes]
    if as_json:
        typer.echo(json.dumps(strict_json({**dataclasses.asdict(found), "notes": notes}), indent=2, ensure_ascii=False))
    else:
        title = f"{', '.join(map(str, against))} in {train}: {len(training):,} series"
        print_or_write(tasks_table(found, title, notes), None, None)
        if found.overlaps:
            print_or_write(overlaps_table(found, MAX_SHOWN), None, None)
    if folder is not None:
        against_it = ", ".join(one.name for one in against)
        typer.echo(f"wrote {add_to_card(folder, *card_section(found, against_it))}", err=as_json)
    if out is not None:
        entries = blocked(found.overlaps, [one.name for one in training.sources])
        write_excluded(out, entries)
        typer.echo(f"wrote {out}: {len(entries):,} series; data.exclude={out} leaves them out", err=as_json)


def _benchmark(against: list[Path], data_root: Path | None, table: TableOptions) -> tuple[Benchmark, list[str]]:
    """What is looked for, and what has to be said of it."""
    from foreloom.audit.benchmark import Benchmark
    from foreloom.evaluation import suites
    from foreloom.evaluation.config import is_file_of_tasks
    from foreloom.evaluation.tasks import read_tasks

    first, *others = against
    is_file, is_suite = is_file_of_tasks(str(first)), str(first) in suites.names() and not first.exists()
    if (is_file or is_suite) and others:
        raise ValueError(f"--against {first} is a list of tasks: give it alone.")
    if is_file:
        return Benchmark.of_tasks(read_tasks(first, data_root)), []
    if is_suite:
        suite = suites.load(str(first))
        root = suites.data_root_of(suite, data_root)
        tasks, missing = suites.suite_tasks(suite.name, root)
        sentence = suites.missing_sentence(suite, missing, root)
        if not tasks:
            raise ValueError(sentence)
        return Benchmark.of_tasks(tasks), [sentence] if sentence else []
    if data_root is not None:
        raise ValueError("--data-root is for tasks and suites; --against DATA is a path of its own. Leave it out.")
    try:
        return Benchmark.of_data(against), []
    except ValueError as error:
        if table != TableOptions():
            error.add_note("Options of tables are of TRAIN here: foreloom data convert takes those of --against.")
        raise
