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
from foreloom.data.mixture import DataConfig
from foreloom.data.synthetic.address import missing_data
from foreloom.data.validation import ValidationWindows
from foreloom.distributed.mesh import ParallelConfig
from foreloom.distributed.process import Process, start, stop
from foreloom.distributed.reduce import from_rank_zero
from foreloom.evaluation.benchmark import TrainingBenchmark
from foreloom.evaluation.config import BENCHMARK_SCORES, BenchmarkConfig, tier_tasks
from foreloom.files import write_text
from foreloom.models import registry, tsm
from foreloom.monitoring.config import MonitoringConfig
from foreloom.monitoring.monitor import Monitor
from foreloom.recipe_files import find_files
from foreloom.training.banner import banner
from foreloom.training.config import TrainingConfig
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
    "benchmark": BenchmarkConfig,
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
    sections, missing = find_files(recipe, need_data=need_data)
    problems = _contradictions(recipe) + missing
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
    training = training.in_steps(loader.num_epoch_batches)
    held_out = _validation_windows(recipe, process, loader)
    if model_config.pretrained is not None:
        folder = find_model_folder(model_config.pretrained)
        model_config = dataclasses.replace(model_config, pretrained=str(folder))
    family = registry.get(model_config.family)
    monitor = Monitor(run_dir, training.num_steps, recipe.sections["monitoring"], process.is_main)
    model = family.build(model_config, **lengths)
    if model_config.pretrained is None:
        family.initialize(model, training.seed)
    benchmark = _benchmark(recipe, run_dir, process)
    if benchmark:
        benchmark.check(model)
    checkpointer = Checkpointer(
        run_dir,
        _checkpointing(recipe),
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
        benchmark=benchmark,
        banner=banner(recipe, process, loader, held_out, _tiers(recipe), training.num_steps, num_parameters),
        config_hash=config_hash(recipe),
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
    metric = recipe.sections["checkpoint"].best_metric
    scored = [VALIDATION_LOSS] if validation.steps else []
    scored += recipe.sections["benchmark"].metrics()
    if metric is not None and metric not in scored:
        problems["checkpoint.best_metric"] = _no_such_score(metric, scored)
    return [f"{recipe.where(key)}: {key}: {sentence}" for key, sentence in problems.items()]


def _no_such_score(metric: str, scored: Sequence[str]) -> str:
    if metric == VALIDATION_LOSS:
        return f"there is no {VALIDATION_LOSS} without validation.steps; set it."
    tier = "extended_" if metric.startswith("extended_") else ""
    if metric.removeprefix("extended_") in BENCHMARK_SCORES:
        return f"there is no {metric} without benchmark.{tier}steps; set it."
    return f"there is no score {metric!r}. This run has {', '.join(scored) or 'none'}."


def _benchmark(recipe: Recipe, run_dir: Path, process: Process) -> TrainingBenchmark | None:
    config, model = recipe.sections["benchmark"], recipe.sections["model"]
    if not config.steps:
        return None
    family = registry.get(model.family)
    return TrainingBenchmark(
        config, tier_tasks(config), run_dir, family.forecaster, process, scores_start=model.pretrained is not None
    )


def _tiers(recipe: Recipe) -> str:
    """What is scored, how often: `5 tasks every 200 steps, 15 every 2,000`."""
    config = recipe.sections["benchmark"]
    tasks = tier_tasks(config)
    parts = [f"{len(tasks[tier])} tasks every {steps:,} steps" for tier, steps in config.tiers().items()]
    return ", ".join(parts) or "none"


def _checkpointing(recipe: Recipe) -> CheckpointConfig:
    """The checkpoint section, best_metric filled in: the benchmark's where there is one."""
    config, benchmark = recipe.sections["checkpoint"], recipe.sections["benchmark"]
    if config.best_metric is None and benchmark.steps:
        return dataclasses.replace(config, best_metric=benchmark.metric)
    return config


def _validation_windows(recipe: Recipe, process: Process, loader: WindowLoader) -> ValidationWindows | None:
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
        opened=None if config.sources else loader.sources,
    )


def _settle(recipe: Recipe, run_dir: Path) -> Recipe:
    training = dataclasses.replace(recipe.sections["training"], output_dir=str(run_dir))
    return dataclasses.replace(recipe, sections={**recipe.sections, "training": training})


def config_hash(recipe: Recipe) -> str:
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


def _length(recipe: Recipe) -> dict[str, Any]:
    """What `training.steps` and `epochs` say in terms of each other, where windows are counted and the data are there.

    Opens the sources.
    """
    data, training = recipe.sections["data"], recipe.sections["training"]
    if data.stride is None or any(missing_data(source.path) for source in data.sources):
        return {}
    num_batches = WindowLoader(data, seed=training.seed, batch_size=training.batch_size).num_epoch_batches
    assert num_batches is not None
    if training.epochs is None:
        return {"epochs": float(f"{training.num_steps / num_batches:.3g}")}
    return {"steps": training.in_steps(num_batches).steps}
