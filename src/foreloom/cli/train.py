"""`foreloom train` and `foreloom show`: run a recipe, or tell what it says."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import OverridesArgument, RecipeArgument
from foreloom.config.elsewhere import setting_here

_SHORT_FLAGS = {"-d": "--data_path", "-m": "--model_path", "-o": "--output_path"}
"""Of Time-MoE's main.py."""


def flag_of_trainers(flag: str) -> str | None:
    """The setting that says here what a flag of the trainers people come from says; None for any other flag."""
    here = setting_here(_SHORT_FLAGS.get(flag, flag)) if flag.startswith("--") or flag in _SHORT_FLAGS else None
    if here is None and "." in flag and flag.startswith("--"):
        return f"{flag[2:]}=VALUE, without the strokes, where it is a setting of the recipe"
    return here


def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, typer.Option(help="The run folder (default: runs/<recipe>).")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in the folder.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print warnings only; training.log has all lines.")
    ] = False,
) -> None:
    """Train or fine-tune the model a recipe describes. Starts alone or under torchrun."""
    _look(recipe)
    from foreloom import run
    from foreloom.distributed.process import leave
    from foreloom.training.signals import exit_code

    settings = [*(overrides or []), *(["monitoring.quiet=true"] if quiet else [])]
    try:
        result = run.train(recipe, settings, out=out, resume=resume)
    except KeyboardInterrupt:  # before the first step, or told twice
        leave(exit_code(signal.SIGINT))
    raise typer.Exit(result.exit_code)


def show(
    recipe: Annotated[str | None, typer.Argument(help="A recipe file, or the name of a shipped one.")] = None,
    overrides: OverridesArgument = None,
    from_tsm: Annotated[Path | None, typer.Option(help="Translate a flat TSM-Trainer YAML into a recipe.")] = None,
    from_chronos: Annotated[
        Path | None, typer.Option(help="Translate a YAML of chronos-forecasting's training script into a recipe.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="With --from-...: on how many devices it was run (default: 1).")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the shipped recipes, what each is for.")] = False,
) -> None:
    """Print a recipe as it will run, with a sentence a setting; list the shipped ones; or translate an old one."""
    from foreloom.config.shipped import purpose, shipped_recipes

    if sum((recipe is not None, from_tsm is not None, from_chronos is not None, list_all)) != 1:
        raise ValueError("give a recipe, --list, --from-tsm FILE or --from-chronos FILE, one of them.")
    if devices is not None and from_tsm is None and from_chronos is None:
        raise ValueError("--devices has no effect without --from-tsm or --from-chronos; leave it out.")
    if list_all:
        shipped = shipped_recipes()
        width = max(map(len, shipped))
        for name, path in shipped.items():
            typer.echo(f"{name:<{width}}  {purpose(path)}")
    elif recipe is not None:
        _look(recipe)
        from foreloom import run

        typer.echo(run.describe(run.load(recipe, overrides or [], need_data=False)), nl=False)
    elif from_tsm is not None:
        from foreloom.cli.translate_tsm import translate

        _refuse_other(from_tsm, "--from-tsm")
        typer.echo(translate(from_tsm, devices=devices or 1), nl=False)
    elif from_chronos is not None:
        from foreloom.cli import translate_chronos

        typer.echo(translate_chronos.translate(from_chronos, devices=devices or 1), nl=False)


def _refuse_other(path: Path, option: str) -> None:
    """A file of chronos-forecasting's script is a Chronos-T5, and would become a Chronos-2 where it has no key that
    tells."""
    from foreloom.cli.translate_chronos import is_of_script
    from foreloom.config.located import read_yaml

    if is_of_script(read_yaml(path).values):
        raise ValueError(
            f"{path} is a configuration of chronos-forecasting's training script (Chronos-T5): give it to "
            f"--from-chronos instead of {option}."
        )


def _look(recipe: str) -> None:
    """Tell of a wrong name, and of a file of another trainer, before torch is imported."""
    from foreloom.cli.translate_chronos import is_of_script
    from foreloom.cli.translate_tsm import is_old
    from foreloom.config.located import read_yaml
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe)
    values = read_yaml(path).values
    if is_of_script(values):
        raise ValueError(
            f"{path} is a configuration of chronos-forecasting's training script. Translate it first: foreloom show "
            f"--from-chronos {path} --devices N > recipe.yaml, N the devices it ran on."
        )
    if is_old(values):
        raise ValueError(
            f"{path} is a flat configuration of TSM-Trainer (Chronos-2). Translate it first: foreloom show --from-tsm "
            f"{path} --devices N > recipe.yaml, N the devices it ran on; or with --from-chronos, if it is of "
            "chronos-forecasting's training script (Chronos-T5)."
        )
