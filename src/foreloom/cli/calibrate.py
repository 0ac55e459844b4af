"""`foreloom calibrate`: a model whose bands hold what they say on a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import DeviceOption, JsonOption, ModelArgument, or_example, with_table_options
from foreloom.data.tables.options import TableOptions


@with_table_options
def calibrate(
    model: ModelArgument,
    data: Annotated[
        Path, typer.Argument(help="A table, a folder of tables, or any other data set.", callback=or_example)
    ],
    horizon: Annotated[int, typer.Option(min=1, help="Steps that will be forecast.")],
    out: Annotated[Path, typer.Option(help="The folder to write: the model with its calibration.")],
    windows: Annotated[
        int, typer.Option(min=2, help="Windows of each series; the newest quarter tries what the older ones make.")
    ] = 24,
    step: Annotated[
        int | None, typer.Option(min=1, help="Steps from one window to the next (default: the horizon).")
    ] = None,
    context_length: Annotated[int | None, typer.Option(min=1, help="Use only the newest steps.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    *,
    table: TableOptions,
) -> None:
    """Move a model's quantiles so that its bands hold what they say, and write it with them."""
    from foreloom.checkpoint.locate import check_hides_no_run
    from foreloom.files import check_writable
    from foreloom.forecast import from_pretrained
    from foreloom.models.calibration import CALIBRATION_FILE
    from foreloom.monitoring.progress import Progress
    from foreloom.report.tables import Column, ScoreTable, print_or_write

    check_writable(out / CALIBRATION_FILE, "--out", [data, model])
    check_hides_no_run(out)
    loaded = from_pretrained(model, device=device)
    trial = loaded.calibrate(
        data, horizon, windows, step=step, context_length=context_length, progress=Progress, **vars(table)
    )
    loaded.save_pretrained(out)
    names = ("coverage", "coverage_calibrated", "standard_error", "width", "width_calibrated")
    columns = [Column("Band", "text"), *(Column(name.replace("_", " ").capitalize(), "score", name) for name in names)]
    rows = [[f"{row['band']} %", *(row[name] for name in names)] for row in trial.rows]
    title = f"{data.name}: {trial.num_windows:,} windows of {horizon:,} steps, later than those it is made of"
    notes = (
        "Standard error: of a coverage, by how much windows of one number differ from those of another.",
        "Width: the mean, in seasonal errors.",
        *(f"note: {note}" for note in trial.notes),
    )
    print_or_write(ScoreTable(columns, rows, [], title, notes), "json" if as_json else None, None)
    typer.echo(f"wrote {out}", err=as_json)
