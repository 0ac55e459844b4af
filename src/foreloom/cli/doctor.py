"""`foreloom doctor`: what this machine has, what of it a run may use, and what follows from that."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from foreloom.cli.arguments import JsonOption, OverridesArgument


def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of a shipped one: for what it sets.")
    ] = None,
    overrides: OverridesArgument = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Ranks that share this machine (default: as the launcher says, or one).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell of the cores and the memory that a run may really use here, who else may use them, and the threads that
    follow."""
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe) if recipe else None
    from foreloom.run import load
    from foreloom.run.machine import examine

    sections = load(path, overrides or [], need_data=False).sections if path else {}
    findings = examine(sections.get("training"), sections.get("data"), ranks_here=ranks)
    if as_json:
        typer.echo(json.dumps({name: finding.value for name, finding in findings.items()}, indent=2))
        return
    width = max(map(len, findings))
    for name, finding in findings.items():
        typer.echo(f"{name:<{width}}  {finding.sentence}")
