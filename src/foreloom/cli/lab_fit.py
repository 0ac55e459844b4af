"""`foreloom lab fit`: laws of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import JsonOption, split_names
from foreloom.cli.lab import lab_app


def _columns(text: str | None) -> dict[str, str]:
    """`N=params,L=loss` as a mapping."""
    pairs = [part.partition("=") for part in split_names(text or "")]
    if wrong := [name for name, _, column in pairs if name not in ("N", "D", "C", "L", "run") or not column]:
        raise typer.BadParameter(f"{wrong[0]!r}: expected N, D, C, L or run, each =COLUMN.")
    return {name: column for name, _, column in pairs}


@lab_app.command(epilog="Example: foreloom lab fit losses.csv --columns N=params,D=tokens,L=loss")
def fit(
    path: Annotated[Path, typer.Argument(help="A study's folder of CSVs, or a CSV of N, D (or C) and L.")],
    loss: Annotated[str, typer.Option(help="huber, or lad for absolute deviations (approach 3).")] = "huber",
    delta: Annotated[float, typer.Option(min=1e-9, help="Of Huber's loss, in nats of log loss.")] = 1e-3,
    drop_worst: Annotated[int, typer.Option(min=0, help="Leave out so many points of the highest loss.")] = 0,
    bootstrap: Annotated[int, typer.Option(min=0, help="Sets of runs drawn for the intervals; 0: none.")] = 400,
    columns: Annotated[str | None, typer.Option(help="What columns are called: N=params,D=tokens,L=loss.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit scaling laws to finished runs, with intervals, and say what the runs cannot tell."""
    from foreloom.lab.fit.analysis import analyse, print_findings

    found = analyse(
        path, columns=_columns(columns), loss=loss, delta=delta, drop_worst=drop_worst, num_bootstrap=bootstrap
    )
    print_findings(found, as_json=as_json)
