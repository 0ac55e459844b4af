"""`foreloom lab`: studies, several runs that answer one question together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import FormatOption, OverridesArgument, RecipeArgument, or_example

lab_app = typer.Typer(help="Studies: several runs that answer one question together.", no_args_is_help=True)


@lab_app.command(epilog="Example: foreloom lab ab chronos-t5-tiny-sample chronos-t5-tiny-moe-sample --seeds 3")
def ab(
    a: RecipeArgument,
    b: RecipeArgument,
    overrides: OverridesArgument = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each recipe, each from a seed of its own.")] = 3,
    equal: Annotated[
        str,
        typer.Option(help="steps: B trains as long as A; compute: for as many steps as A's FLOPs pay for; or both."),
    ] = "both",
    tasks: Annotated[
        Path | None,
        typer.Option(help="A YAML file of tasks to score, instead of what the recipes hold out.", callback=or_example),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the test (default: runs/ab-A-B); finished runs there are kept.")
    ] = None,
    form: FormatOption = None,
    fail_if_worse: Annotated[
        bool,
        typer.Option("--fail-if-worse", help="Exit with 1 where B is worse than A beyond chance."),
    ] = False,
) -> None:
    """Train two recipes on the same data and tell which is better, with intervals. Exits with 1 if a training fails."""
    from foreloom.config.shipped import find_recipe

    for recipe in (a, b):
        find_recipe(recipe)  # a wrong name is told before torch is imported
    from foreloom.lab.ab import compare_recipes, parse_equal
    from foreloom.report.tables import parse_form

    code = compare_recipes(
        a,
        b,
        overrides=overrides or [],
        num_seeds=seeds,
        equal=parse_equal(equal),
        tasks=tasks,
        out=out,
        form=parse_form(form),
        fail_if_worse=fail_if_worse,
    )
    raise typer.Exit(code)
