"""A run: a recipe becomes a trainer here and nowhere else. `train` is what `foreloom train` calls."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreloom.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from foreloom.checkpoint.locate import find_model_folder
from foreloom.checkpoint.manifest import VALIDATION_LOSS
from foreloom.config.loader import Recipe, SectionChoice, describe_recipe, flatten, load_recipe, plain
from foreloom.config.located import RecipeError, read_yaml
from foreloom.data.batch import DataSection, HeldOut, SourceStatistics
from foreloom.data.loader import BatchLoader
from foreloom.data.synthetic.address import short_name
from foreloom.distributed.mesh import ParallelConfig, mesh_shape
from foreloom.distributed.parallelize import parallelize
from foreloom.distributed.process import Process, has_group, start, stop
from foreloom.distributed.reduce import from_rank_zero
from foreloom.evaluation.benchmark import TrainingBenchmark
from foreloom.evaluation.config import BENCHMARK_SCORES, BenchmarkConfig, tier_tasks
from foreloom.files import write_text
from foreloom.models import registry
from foreloom.models.family import forecaster_of, series
from foreloom.monitoring.monitor import Monitor, MonitoringConfig
from foreloom.recipe_files import find_files
from foreloom.training.config import TrainingConfig, autocast_dtype
from foreloom.training.optimizer import OptimizerConfig, build_optimizer
from foreloom.training.scoring import Validation
from foreloom.training.trainer import Trainer, TrainResult

logger = logging.getLogger(__name__)

RECIPE_NAME = "recipe.yaml"


def _model_section(recipe: Mapping[str, Any]) -> type:
    family = (recipe.get("model") or {}).get("family")
    if not isinstance(family, str):
        wrong = "is required and not given" if family is None else f"expected a name, got {family!r}"
        raise ValueError(f"model.family: {wrong}. Known: {', '.join(registry.names())}.")
    return registry.get(family).config


def _data_section(recipe: Mapping[str, Any]) -> type[DataSection]:
    """The family's kind of data; that of series where no family is named, which `_model_section` tells of."""
    raw = recipe.get("model")
    name = raw.get("family") if isinstance(raw, Mapping) else None
    return registry.get(name).data() if name in registry.names() else series()


SECTIONS: dict[str, SectionChoice] = {
    "model": _model_section,
    "data": _data_section,
    "training": TrainingConfig,
    "optimizer": OptimizerConfig,
    "validation": lambda recipe: _data_section(recipe).validation,
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
    process = start(training.device, group_of_one=recipe.sections["parallel"].strategy != "auto")
    try:
        return build(recipe, run_dir, process, resume=resume).train()
    finally:
        stop()


def build(recipe: Recipe, run_dir: Path, process: Process, *, resume: bool = False) -> Trainer:
    """The composition root: sections in, a trainer ready to `train()` out."""
    training = recipe.sections["training"]
    assert isinstance(training, TrainingConfig)
    model_config, data = _found(recipe.sections["model"]), data_of(recipe)
    family = registry.get(model_config.family)
    optimizer_config, validation = recipe.sections["optimizer"], recipe.sections["validation"]
    dataset = data.open(training.seed, batch_size=training.batch_size)
    ranks = {"rank": process.rank, "world_size": process.world_size}
    loader = BatchLoader(
        dataset,
        batch_size=training.batch_size,
        micro_batch_size=training.micro_batch_size,
        num_prefetch=data.num_prefetch,
        **ranks,
    )
    training = training.in_steps(loader.num_epoch_batches)
    learning_rate = functools.partial(optimizer_config.learning_rate_of, num_updates=training.num_steps)
    learning_rate(1)  # a schedule that does not fit is told before any work
    share = training.micro_batch_size or -(-training.batch_size // process.world_size)
    held_out = data.held_out(validation, dataset, micro_batch_size=share, **ranks)
    monitor = Monitor(run_dir, training.num_steps, recipe.sections["monitoring"], process.is_main)
    model = family.build(model_config, data)
    if model_config.pretrained is None:
        family.initialize(model, training.seed)
    benchmark = _benchmark(recipe, run_dir, process)
    if benchmark:
        benchmark.check(model)
    checkpointer = Checkpointer(
        run_dir, _checkpointing(recipe), process, save_total_limit=training.save_total_limit, resume=resume
    )
    num_parameters = sum(p.numel() for p in model.parameters())
    flops_per_row, kinds = family.flops_per_row(model, data), family.kinds(model)
    parallel = parallelize(
        model,
        family.sharding,
        recipe.sections["parallel"],
        process,
        activation_checkpointing=training.activation_checkpointing,
        compile_blocks=training.compile,
        autocast_dtype=autocast_dtype(training.precision, process.device),
    )
    return Trainer(
        training,
        family,
        parallel,
        build_optimizer(optimizer_config, parallel.named_parameters(), kinds, max_grad_norm=training.max_grad_norm),
        learning_rate,
        loader,
        process,
        checkpointer,
        monitor,
        flops_per_row=flops_per_row,
        validation=Validation(validation, held_out) if held_out else None,
        benchmark=benchmark,
        banner=_banner(recipe, process, loader, held_out, training.num_steps, num_parameters),
        config_hash=config_hash(recipe),
        on_start=lambda: _record(recipe, run_dir, process),
    )


def data_of(recipe: Recipe) -> DataSection:
    """The data section with what the model decides of it. A pretrained model is looked for, or downloaded, only where
    it decides something."""
    model, data = recipe.sections["model"], recipe.sections["data"]
    data_for = registry.get(model.family).data_for
    return data if data_for(model, data) is data else data_for(_found(model), data)


def _found(model: Any) -> Any:
    """The model section with the folder of its pretrained model, downloaded where it is a hub id."""
    if model.pretrained is None:
        return model
    return dataclasses.replace(model, pretrained=str(find_model_folder(model.pretrained)))


def describe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, a sentence above each setting, and where each value came from."""
    return describe_recipe(recipe, {"training": _length(recipe)})


def _contradictions(recipe: Recipe) -> list[str]:
    """What settings of several sections say against each other, a line a problem."""
    data, training, validation = (recipe.sections[name] for name in ("data", "training", "validation"))
    problems = {one.key: one.sentence for one in data.contradictions(validation)}
    if training.epochs is not None and (why := data.why_endless()):
        problems["training.epochs"] = why
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
    forecaster = functools.partial(forecaster_of, family)
    return TrainingBenchmark(
        config, tier_tasks(config), run_dir, forecaster, process, scores_start=model.pretrained is not None
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


def _banner(
    recipe: Recipe,
    process: Process,
    loader: BatchLoader,
    held_out: HeldOut | None,
    num_steps: int,
    num_parameters: int,
) -> dict[str, dict[str, Any]]:
    """What a run says of itself before its first step: titled sections of labels and values."""
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
            "steps": f"{num_steps:,}" + _in_epochs(num_steps, loader),
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
            **{short_name(source.name): _source_in_words(source) for source in loader.dataset.statistics()},
            **data.in_words(),
            "validation": f"{held_out.num_windows:,} windows every {every:,} steps" if held_out else "none",
            "benchmark": _tiers(recipe),
        },
    }


def _source_in_words(source: SourceStatistics) -> str:
    left_out = "".join(f" ({number:,} {reason})" for reason, number in source.left_out.items() if number)
    return f"{source.num_items:,} {source.unit}, {source.share:.0%} of the samples{left_out}"


def _in_epochs(num_steps: int, loader: BatchLoader) -> str:
    if loader.num_epoch_batches is None:
        return ""
    return f" ({num_steps / loader.num_epoch_batches:.3g} epochs of {loader.dataset.num_epoch_samples:,} samples)"


def _strategy(parallel: ParallelConfig, process: Process, num_parameters: int) -> str:
    if not has_group():
        return "single process"
    shape = mesh_shape(parallel, world_size=process.world_size, num_parameters=num_parameters)
    return "ddp" if shape.strategy == "ddp" else f"fsdp, {shape.dp_replicate} x {shape.dp_shard}"


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
    model, training = recipe.sections["model"], recipe.sections["training"]
    data = registry.get(model.family).data_for(model, recipe.sections["data"])
    if data.why_endless() or not data.is_there():
        return {}
    num_batches = BatchLoader(
        data.open(training.seed, batch_size=training.batch_size), batch_size=training.batch_size
    ).num_epoch_batches
    assert num_batches is not None
    if training.epochs is None:
        return {"epochs": float(f"{training.num_steps / num_batches:.3g}")}
    return {"steps": training.in_steps(num_batches).steps}
