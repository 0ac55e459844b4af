"""`foreloom lab explain-memory`: what training takes of a device, and what to change where it does not fit."""

from __future__ import annotations

import dataclasses
import json

import typer

from foreloom.cli.arguments import JsonOption, OverridesArgument, RecipeArgument
from foreloom.cli.lab import lab_app


@lab_app.command("explain-memory", epilog="Example: foreloom lab explain-memory chronos2-test training.batch_size=64")
def explain_memory(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
) -> None:
    """Count the memory of a training step, by what it goes into, before anything of it is taken."""
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe)
    from foreloom import run
    from foreloom.run.memory import TERMS, count_memory

    its = run.load(path, overrides or [])
    training = its.sections["training"]
    dataset = run.data_of(its).open(training.seed, batch_size=training.batch_size)
    rows = training.micro_batch_size or training.batch_size
    use = count_memory(its, dataset, rows, device="cpu", accumulates=rows < training.batch_size)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(use) | {"total": use.total}, indent=2))
        return
    for term, size in use.terms.items():
        typer.echo(f"{term:<12} {size / 2**20:>12,.1f} MB  {TERMS[term]}")
    typer.echo(f"{'total':<12} {use.total / 2**20:>12,.1f} MB  at {use.num_rows:,} rows")
