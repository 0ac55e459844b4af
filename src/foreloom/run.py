"""A run: a recipe becomes a trainer here and nowhere else. `train` is what `foreloom train` calls."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foreloom.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from foreloom.checkpoint.locate import find_model_folder
from foreloom.checkpoint.manifest import VALIDATION_LOSS
from foreloom.config.describe import describe_recipe
from foreloom.config.loader import Recipe, SectionChoice, flatten, load_recipe, plain
from foreloom.config.located import RecipeError, read_yaml
from foreloom.data.loader import WindowLoader
from foreloom.data.mixture import DataConfig, SourceConfig
from foreloom.data.validation import ValidationWindows
from foreloom.distributed.mesh import ParallelConfig, mesh_shape
from foreloom.distributed.process import Process, start, stop
from foreloom.distributed.reduce import from_rank_zero
from foreloom.files import write_text
from foreloom.models import registry, tsm
from foreloom.monitoring.monitor import Monitor, MonitoringConfig
from foreloom.training.config import TrainingConfig, autocast_dtype
from foreloom.training.optimizer import OptimizerConfig
from foreloom.training.trainer import Trainer, TrainResult
from foreloom.training.validation import Validation, ValidationConfig

logger = logging.getLogger(__name__)

RECIPE_NAME = "recipe.yaml"


def _model_section(raw: Mapping[str, Any]) -> type:
    if "family" not in raw:
        raise ValueError(f"model.family: is required and not given. Known: {', '.join(registry.names())}.")
    return registry.get(raw["family"]).config


SECTIONS: dict[str, SectionChoice] = {
    "model": _model_section,
    "data": DataConfig,
    "training": TrainingConfig,
    "optimizer": OptimizerConfig,
    "validation": ValidationConfig,
    "parallel": ParallelConfig,
    "checkpoint": CheckpointConfig,
    "monitoring": MonitoringConfig,
}
"""What a recipe is made of."""


def load(path: str | Path, overrides: Sequence[str] = (), *, need_data: bool = True) -> Recipe:
    """Read a recipe and find the files it names; `RecipeError` lists everything that is wrong with it.

    A relative path is looked for beside the file that names it, then in the working directory. `need_data` makes data
    that are not there an error.
    """
    recipe = load_recipe(path, overrides, SECTIONS)
    sections = dict(recipe.sections)
    problems = _contradictions(recipe)
    for name in ("data", "validation"):
        sources: list[SourceConfig] = []
        for i, source in enumerate(sections[name].sources):
            key = f"{name}.sources.{i}.path"
            found = _find(source.path, recipe.where(key))
            if found is None and need_data:
                problems.append(f"{recipe.where(key)}: {key}: no such file or folder: {source.path}.")
            sources.append(dataclasses.replace(source, path=str(found or source.path)))
        sections[name] = dataclasses.replace(sections[name], sources=tuple(sources))
    pretrained = getattr(sections["model"], "pretrained", None)
    if pretrained is not None and (found := _find(pretrained, recipe.where("model.pretrained"))):
        sections["model"] = dataclasses.replace(sections["model"], pretrained=str(found))
    if problems:
        raise RecipeError(problems)
    return dataclasses.replace(recipe, sections=sections)


def train(
    path: str | Path, overrides: Sequence[str] = (), *, out: str | Path | None = None, resume: bool = False
) -> TrainResult:
    """Run a recipe to its end, or go on with a run that was stopped (`resume`). Collective under torchrun.

    `out` is the run folder (default: `training.output_dir`, else runs/<recipe's name>). Raises ValueError with a
    sentence for whatever the recipe, the data, the folder or the memory do not allow.
    """
    recipe = load(path, overrides)
    training = recipe.sections["training"]
    run_dir = Path(out or training.output_dir or Path("runs") / recipe.path.stem)
    recipe = _settle(recipe, run_dir)
    process = start(training.device)
    try:
        return build(recipe, run_dir, process, resume=resume).train()
    finally:
        stop()


def build(recipe: Recipe, run_dir: Path, process: Process, *, resume: bool = False) -> Trainer:
    """The composition root: sections in, a trainer ready to `train()` out."""
    model_config, data, training = (recipe.sections[name] for name in ("model", "data", "training"))
    assert isinstance(training, TrainingConfig)
    lengths = {"context_length": data.context_length, "prediction_length": data.prediction_length}
    loader = WindowLoader(
        data,
        seed=training.seed,
        batch_size=training.batch_size,
        micro_batch_size=training.micro_batch_size,
        rank=process.rank,
        world_size=process.world_size,
    )
    training = training.in_steps(loader.num_epoch_rows)
    held_out = _validation_windows(recipe, process)
    if model_config.pretrained is not None:
        folder = find_model_folder(model_config.pretrained)
        model_config = dataclasses.replace(model_config, pretrained=str(folder))
    family = registry.get(model_config.family)
    monitor = Monitor(run_dir, training.num_steps, recipe.sections["monitoring"], process.is_main)
    model = family.build(model_config, **lengths)
    if model_config.pretrained is None:
        family.initialize(model, training.seed)
    checkpointer = Checkpointer(
        run_dir,
        recipe.sections["checkpoint"],
        process,
        save_total_limit=training.save_total_limit,
        resume=resume,
    )
    num_parameters = sum(p.numel() for p in model.parameters())
    return Trainer(
        training,
        recipe.sections["optimizer"],
        recipe.sections["parallel"],
        model,
        family,
        loader,
        process,
        checkpointer,
        monitor,
        **lengths,
        validation=Validation(recipe.sections["validation"], held_out) if held_out else None,
        banner=_banner(recipe, process, loader, held_out, training.num_steps, num_parameters),
        config_hash=_hash(recipe),
        on_start=lambda: _record(recipe, run_dir, process),
    )


def describe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, a sentence above each setting, and where each value came from."""
    return describe_recipe(recipe, {"training": _length(recipe)})


def translate(path: Path, *, devices: int) -> str:
    """A flat TSM-Trainer YAML as a recipe, with notes on what has no counterpart as comments above it."""
    values, notes = tsm.translate(read_yaml(path), devices=devices)
    header = [f"# Translated from {path.name} for {devices} device{'s' if devices > 1 else ''}."]
    for note in notes:
        header += textwrap.wrap(note, 116, initial_indent="# - ", subsequent_indent="#   ")
    return "\n".join(header) + "\n\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def _contradictions(recipe: Recipe) -> list[str]:
    """What settings of several sections say against each other, a line a problem."""
    data, training, validation = (recipe.sections[name] for name in ("data", "training", "validation"))
    problems = {}
    if training.epochs is not None and data.stride is None:
        problems["training.epochs"] = (
            "needs data.stride: without it windows are drawn at random, without end. "
            f"data.stride={data.context_length + data.prediction_length} cuts series without overlap; or give "
            "training.steps instead."
        )
    if validation.steps and not validation.sources and not any(source.holdout for source in data.sources):
        problems["validation.steps"] = (
            "there is nothing to validate on: give data.sources.0.holdout, the last steps of every series that "
            "training then leaves alone, or data sets of their own in validation.sources."
        )
    if recipe.sections["checkpoint"].best_metric == VALIDATION_LOSS and not validation.steps:
        problems["checkpoint.best_metric"] = f"there is no {VALIDATION_LOSS} without validation.steps; set it."
    return [f"{recipe.where(key)}: {key}: {sentence}" for key, sentence in problems.items()]


def _validation_windows(recipe: Recipe, process: Process) -> ValidationWindows | None:
    data, training, config = (recipe.sections[name] for name in ("data", "training", "validation"))
    if not config.steps:
        return None
    return ValidationWindows(
        data,
        config.sources,
        max_windows=config.max_windows,
        stride=config.stride,
        micro_batch_rows=training.micro_batch_size or -(-training.batch_size // process.world_size),
        rank=process.rank,
        world_size=process.world_size,
    )


def _find(path: str, where: str) -> Path | None:
    """An existing path: as given if absolute, else beside the file of `where` (file:line), else in the cwd."""
    given = Path(path).expanduser()
    folders = [Path(where.rpartition(":")[0]).parent, Path()] if where != "command line" else [Path()]
    return next((found.resolve() for folder in folders if (found := folder / given).exists()), None)


def _settle(recipe: Recipe, run_dir: Path) -> Recipe:
    training = dataclasses.replace(recipe.sections["training"], output_dir=str(run_dir))
    return dataclasses.replace(recipe, sections={**recipe.sections, "training": training})


def _hash(recipe: Recipe) -> str:
    """Of the settings that decide what is computed: where it is written and how it is watched does not count."""
    computed = {name: dataclasses.asdict(section) for name, section in recipe.sections.items() if name != "monitoring"}
    computed["training"].pop("output_dir")
    return hashlib.sha256(repr(computed).encode()).hexdigest()[:16]


def _record(recipe: Recipe, run_dir: Path, process: Process) -> None:
    """Leave the recipe in the run folder, where a refused resume must not have changed it; say what is new in it."""
    for change in from_rank_zero(lambda: _write_recipe(recipe, run_dir), process):
        logger.warning("resumed with another recipe: %s", change)


def _write_recipe(recipe: Recipe, run_dir: Path) -> list[str]:
    """Put the resolved recipe into the run folder; what differs from the one that lay there, a line a setting."""
    path = run_dir / RECIPE_NAME
    before = flatten(read_yaml(path).values) if path.is_file() else {}
    header = f"# Resolved from {recipe.path.name}; training it again gives this run."
    write_text(path, f"{header}\n{recipe.to_yaml()}")
    after = flatten(plain(recipe.sections))
    keys = dict.fromkeys([*before, *after]) if before else {}
    return [f"{key} {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _banner(
    recipe: Recipe,
    process: Process,
    loader: WindowLoader,
    held_out: ValidationWindows | None,
    num_steps: int,
    num_parameters: int,
) -> dict[str, dict[str, Any]]:
    model, data, training = (recipe.sections[name] for name in ("model", "data", "training"))
    optimizer, parallel = recipe.sections["optimizer"], recipe.sections["parallel"]
    dtype = autocast_dtype(training.precision, process.device)
    every = recipe.sections["validation"].steps
    return {
        "Model": {
            "family": model.family,
            "start": model.pretrained or f"random values, size {model.size}",
            "parameters": num_parameters,
        },
        "Optimization": {
            "steps": f"{num_steps:,}" + _in_epochs(training, num_steps, loader.num_epoch_rows),
            "global batch": f"{training.batch_size:,} rows",
            "learning rate": f"{optimizer.learning_rate:g}, {optimizer.schedule}",
            "weight decay": optimizer.weight_decay,
        },
        "Distributed": {
            "device": str(process.device),
            "ranks": process.world_size,
            "strategy": _strategy(parallel, process, num_parameters),
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
        },
        "Data": {
            **{
                Path(source.name).name: f"{source.num_drawn:,} series, {source.probability:.0%} of the samples"
                + (f" ({source.num_short:,} too short)" if source.num_short else "")
                for source in loader.source_statistics()
            },
            "window": f"{data.context_length:,} context, {data.prediction_length:,} horizon",
            "validation": f"{held_out.num_windows:,} windows every {every:,} steps" if held_out else "none",
        },
    }


def _in_epochs(training: TrainingConfig, num_steps: int, num_epoch_rows: int | None) -> str:
    if num_epoch_rows is None:
        return ""
    return f" ({num_steps * training.batch_size / num_epoch_rows:.3g} epochs of {num_epoch_rows:,} rows)"


def _length(recipe: Recipe) -> dict[str, Any]:
    """What `training.steps` and `epochs` say in terms of each other, where windows are counted and the data are there.

    Opens the sources.
    """
    data, training = recipe.sections["data"], recipe.sections["training"]
    if data.stride is None or not all(Path(source.path).exists() for source in data.sources):
        return {}
    num_rows = WindowLoader(data, seed=training.seed, batch_size=training.batch_size).num_epoch_rows
    if training.epochs is None:
        return {"epochs": float(f"{training.steps * training.batch_size / num_rows:.3g}")}
    return {"steps": training.in_steps(num_rows).steps}


def _strategy(parallel: ParallelConfig, process: Process, num_parameters: int) -> str:
    if process.world_size == 1:
        return "single process"
    shape = mesh_shape(parallel, world_size=process.world_size, num_parameters=num_parameters)
    return "ddp" if shape.strategy == "ddp" else f"fsdp, {shape.dp_replicate} x {shape.dp_shard}"
