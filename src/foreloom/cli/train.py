"""`foreloom train` and `foreloom show`: run a recipe, or tell what it says."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import OverridesArgument, RecipeArgument

FLAGS_OF_TRAINERS = {
    "--config": "the recipe itself: foreloom train RECIPE",
    "-d": "data.sources.0.path=PATH",
    "--data_path": "data.sources.0.path=PATH",
    "-m": "model.pretrained=FOLDER-OR-ID",
    "--model_path": "model.pretrained=FOLDER-OR-ID",
    "--model-id": "model.pretrained=FOLDER-OR-ID",
    "--from_scratch": "model.pretrained=null model.size=50m",
    "--random-init": "model.pretrained=null model.size=base",
    "--no-random-init": "model.pretrained=FOLDER-OR-ID",
    "-o": "--out FOLDER",
    "--output_path": "--out FOLDER",
    "--output-dir": "--out FOLDER",
    "--resume-from-checkpoint": "--resume",
    "--context-length": "data.context_length=N",
    "--prediction-length": "data.prediction_length=N",
    "--max_length": "data.context_length=N-H+1 data.prediction_length=H",
    "--stride": "data.stride=N",
    "--normalization_method": "data.normalization=zero data.normalization_scope=series",
    "--max-train-series": "data.sources.0.max_series=N",
    "--max-steps": "training.steps=N",
    "--train_steps": "training.steps=N training.epochs=null",
    "--num_train_epochs": "training.epochs=N training.steps=null",
    "--per-device-train-batch-size": "training.micro_batch_size=N, and training.batch_size of all devices together",
    "--gradient-accumulation-steps": "training.batch_size=N x devices x training.micro_batch_size",
    "--global_batch_size": "training.batch_size=N",
    "--micro_batch_size": "training.micro_batch_size=N",
    "--precision": "training.precision=bf16",
    "--gradient_checkpointing": "training.activation_checkpointing=true",
    "--max_grad_norm": "training.max_grad_norm=X",
    "--seed": "training.seed=N",
    "--save_steps": "training.save_steps=N",
    "--save_total_limit": "training.save_total_limit=N",
    "--learning-rate": "optimizer.learning_rate=X",
    "--learning_rate": "optimizer.learning_rate=X",
    "--min_learning_rate": "optimizer.final_ratio=X, the last learning rate over the highest",
    "--lr_scheduler_type": "optimizer.schedule=cosine",
    "--warmup_ratio": "optimizer.warmup_ratio=X",
    "--warmup_steps": "optimizer.warmup_steps=N",
    "--weight_decay": "optimizer.weight_decay=X",
    "--adam_beta1": "optimizer.betas=[0.9, 0.95]",
    "--adam_beta2": "optimizer.betas=[0.9, 0.95]",
    "--adam_epsilon": "optimizer.epsilon=X",
    "--attn_implementation": "model.attn_implementation=sdpa",
    "--logging_steps": "monitoring.log_steps=N",
}
"""Flags of the trainers people come from, Time-MoE's main.py and TSM-Trainer's, and the setting that says the same."""


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
    devices: Annotated[
        int | None, typer.Option(min=1, help="With --from-tsm: on how many devices it was run (default: 1).")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the shipped recipes, what each is for.")] = False,
) -> None:
    """Print a recipe as it will run, with a sentence a setting; list the shipped ones; or translate an old one."""
    from foreloom.config.shipped import purpose, shipped_recipes

    if sum((recipe is not None, from_tsm is not None, list_all)) != 1:
        raise ValueError("give a recipe, --list or --from-tsm FILE, one of them.")
    if devices is not None and from_tsm is None:
        raise ValueError("--devices has no effect without --from-tsm; leave it out.")
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

        typer.echo(translate(from_tsm, devices=devices or 1), nl=False)


def _look(recipe: str) -> None:
    """Tell of a wrong name, and of a file of another trainer, before torch is imported."""
    from foreloom.cli.translate_tsm import is_old
    from foreloom.config.located import read_yaml
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe)
    if is_old(read_yaml(path).values):
        raise ValueError(
            f"{path} is a flat configuration of TSM-Trainer. Translate it first: "
            f"foreloom show --from-tsm {path} --devices N > recipe.yaml, N the devices it ran on."
        )
