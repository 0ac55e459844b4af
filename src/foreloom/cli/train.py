"""`foreloom train` and `foreloom show`: run a recipe, or tell what it says."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import OverridesArgument, RecipeArgument


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
    from foreloom.distributed.process import leave
    from foreloom.training.signals import exit_code

    try:
        result = run.train(recipe, overrides or [], out=out, resume=resume)
    except KeyboardInterrupt:  # before the first step, or told twice
        leave(exit_code(signal.SIGINT))
    raise typer.Exit(result.exit_code)


def show(
    recipe: Annotated[str | None, typer.Argument(help="A recipe file, or the name of a shipped one.")] = None,
    overrides: OverridesArgument = None,
    from_tsm: Annotated[Path | None, typer.Option(help="Translate a flat TSM-Trainer YAML into a recipe.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="With --from-tsm: on how many devices it was run.")] = 1,
) -> None:
    """Print a recipe as it will run, with a sentence a setting; or translate an old one."""
    if recipe is not None and from_tsm is None:
        from foreloom import run

        typer.echo(run.describe(run.load(recipe, overrides or [], need_data=False)), nl=False)
    elif from_tsm is not None and recipe is None:
        from foreloom.cli.translate_tsm import translate

        typer.echo(translate(from_tsm, devices=devices), nl=False)
    else:
        raise ValueError("give either a recipe or --from-tsm FILE.")
