"""`foreloom lab explain-memory`: what training takes of a device, and what to change where it does not fit."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from foreloom.cli.arguments import JsonOption, OverridesArgument, RecipeArgument
from foreloom.cli.lab import lab_app


@lab_app.command("explain-memory", epilog="Example: foreloom lab explain-memory chronos2-base --gpus 8 --memory 80GB")
def explain_memory(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    gpus: Annotated[
        int, typer.Option(min=0, help="GPUs that train together; 0: the device the recipe finds here.")
    ] = 0,
    memory: Annotated[
        str | None, typer.Option(help="Of one device (80GB), instead of what this machine has; implies a GPU.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count the memory of a training step by what it goes into, before anything of it is taken; then the largest
    micro-batch that fits. Needs neither a GPU nor, for new models, the data. Exits with 1 where nothing fits."""
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe)
    from foreloom import run
    from foreloom.run.explain import explain

    found = explain(run.load(path, overrides or [], need_data=False), num_gpus=gpus, memory=memory)
    typer.echo(json.dumps(found, indent=2) if as_json else _table(found))
    if found["device_bytes"] is not None and found["fits"] is None:
        raise typer.Exit(1)


def _table(found: dict[str, Any]) -> str:
    """Terms and their share, then sentences."""
    from foreloom.monitoring.health import bytes_in_words
    from foreloom.run.memory import TERMS

    rows = [(term, size) for term, size in found["terms"].items() if size]
    lines = [f"{found['where']}, micro-batches of {found['num_rows']:,} rows:", ""]
    lines += [
        f"  {term:<12}{bytes_in_words(size):>12}{size / found['total']:>7.1%}  {TERMS[term]}" for term, size in rows
    ]
    lines += [f"  {'in all':<12}{bytes_in_words(found['total']):>12}", "", *found["sentences"]]
    return "\n".join(lines)
