"""A run: a recipe becomes a trainer here and nowhere else. `train` is what `foreloom train` calls."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import timeit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foreloom.checkpoint.checkpointer import CheckpointConfig, Checkpointer, check_folder
from foreloom.checkpoint.export import model_card
from foreloom.checkpoint.locate import find_model_folder
from foreloom.checkpoint.manifest import VALIDATION_LOSS
from foreloom.config.loader import Recipe, SectionChoice, describe_recipe, flatten, line_of, plain, read_recipe
from foreloom.config.located import RecipeError, read_yaml
from foreloom.data.batch import DataSection, HeldOut, SourceStatistics
from foreloom.data.config import ValidationConfig
from foreloom.data.loader import BatchLoader
from foreloom.data.synthetic.address import short_name
from foreloom.distributed.agreement import check_agreement
from foreloom.distributed.mesh import ParallelConfig, mesh_shape
from foreloom.distributed.parallelize import parallelize
from foreloom.distributed.process import Process, has_group, is_of_peers, prepare, start, stop
from foreloom.distributed.reduce import from_rank_zero
from foreloom.evaluation.benchmark import TrainingBenchmark
from foreloom.evaluation.config import BENCHMARK_SCORES, BenchmarkConfig, tier_tasks
from foreloom.files import write_text
from foreloom.models import registry
from foreloom.models.common.lora import AdapterConfig, FrozenWeights, attach_adapter, check_base, merged, write_adapter
from foreloom.models.family import ModelFamily, forecaster_of, series
from foreloom.monitoring.monitor import Monitor, MonitoringConfig
from foreloom.recipe_files import find_files
from foreloom.training.config import TrainingConfig, autocast_dtype, freeze
from foreloom.training.optimizer import OptimizerConfig, build_optimizer
from foreloom.training.scoring import Validation
from foreloom.training.step import is_out_of_memory
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
    "adapter": AdapterConfig,
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
    recipe = read_recipe(path, [*_absent_validation(overrides), *overrides], SECTIONS)
    sections, missing = find_files(recipe, need_data=need_data)
    problems = list(recipe.problems) or _contradictions(recipe)
    if problems := problems + missing:
        raise RecipeError(sorted(problems, key=line_of))
    return dataclasses.replace(recipe, sections=sections)


def train(
    path: str | Path, overrides: Sequence[str] = (), *, out: str | Path | None = None, resume: bool = False
) -> TrainResult:
    """Run a recipe to its end, or go on with a run that was stopped (`resume`). Collective under torchrun.

    `out` is the run folder (default: `training.output_dir`, else runs/<recipe's name>). Raises ValueError with a
    sentence for whatever the recipe, the data, the folder or the memory do not allow.
    """
    try:
        recipe = prepare(lambda: load(path, overrides))
        training, parallel = recipe.sections["training"], recipe.sections["parallel"]
        run_dir = Path(out or training.output_dir or Path("runs") / recipe.path.stem)
        recipe = _settle(recipe, run_dir)
        process = start(
            training.device, group_of_one=parallel.strategy != "auto", timeout_minutes=parallel.timeout_minutes
        )
        return build(recipe, run_dir, process, resume=resume).train()
    except (RuntimeError, MemoryError) as error:
        if (sentence := _in_words(error)) is None:
            raise
        raise ValueError(sentence) from error
    finally:
        stop()


def _in_words(error: RuntimeError | MemoryError) -> str | None:
    """What a run may end by that is nobody's mistake in the code; None for anything else."""
    first_line = str(error).strip().partition("\n")[0]
    if is_out_of_memory(error):
        return (
            f"there is not enough memory ({first_line or 'MemoryError'}). Lower training.micro_batch_size, "
            "data.context_length or data.num_prefetch, or end what else runs on this machine"
        )
    if isinstance(error, RuntimeError) and is_of_peers(error):
        return (
            f"another rank has gone or did not answer within parallel.timeout_minutes ({first_line}). If it said "
            "nothing, it was killed, by the system for want of memory perhaps. --resume goes on from the newest "
            "checkpoint"
        )
    return None


def build(recipe: Recipe, run_dir: Path, process: Process, *, resume: bool = False) -> Trainer:
    """The composition root: sections in, a trainer ready to `train()` out."""
    model_config, data, training = (recipe.sections[name] for name in ("model", "data", "training"))
    assert isinstance(training, TrainingConfig)
    optimizer_config, validation = recipe.sections["optimizer"], recipe.sections["validation"]
    check_agreement({"run folder": str(run_dir.absolute())}, process)
    from_rank_zero(lambda: check_folder(run_dir), process)
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
    if model_config.pretrained is not None:
        folder = find_model_folder(model_config.pretrained)
        model_config = dataclasses.replace(model_config, pretrained=str(folder))
    family = registry.get(model_config.family)
    monitor = Monitor(run_dir, training.num_steps, recipe.sections["monitoring"], process.is_main)
    model = family.build(model_config, data)
    if model_config.pretrained is None:
        family.initialize(model, training.seed)
    frozen = _leave_to_be_trained(model, recipe, family)
    family = _exporting(family, recipe, model, model_config.pretrained)
    benchmark = _benchmark(recipe, run_dir, process)
    if benchmark:
        benchmark.check(model)
    checkpointer = Checkpointer(
        run_dir, _checkpointing(recipe), process, save_total_limit=training.save_total_limit, resume=resume
    )
    num_parameters = sum(p.numel() for p in model.parameters())
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
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
    banner = _banner(recipe, process, loader, held_out, training.num_steps, (num_parameters, num_trained))
    if process.device.type == "cpu" and process.is_main:
        _warn_of_cost(flops_per_row * training.batch_size * training.num_steps, process.world_size)
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
        frozen=frozen,
        banner=banner,
        config_hash=config_hash(recipe),
        card=_card(recipe, run_dir, family, banner),
        on_start=lambda: _record(recipe, run_dir, process),
    )


def _absent_validation(overrides: Sequence[str]) -> list[str]:
    """Who turns validation off turns off what a recipe hangs on it."""
    given = {name: value for name, _, value in (one.partition("=") for one in overrides)}
    if given.get("validation.steps") != "0":
        return []
    hanging = {f"validation.{name}": value for name, value in ValidationConfig.ABSENT.items()}
    return [f"{name}={value}" for name, value in hanging.items() if name not in given]


def _leave_to_be_trained(model: nn.Module, recipe: Recipe, family: ModelFamily) -> FrozenWeights | None:
    """Attach the adapter, or freeze what the recipe says; what is then not trained, if anything."""
    adapter, training = recipe.sections["adapter"], recipe.sections["training"]
    if adapter.kind == "lora":
        attach_adapter(model, adapter, family.lora, training.seed)
    else:
        freeze(model, training)
    return None if all(p.requires_grad for p in model.parameters()) else FrozenWeights(model)


def _exporting(family: ModelFamily, recipe: Recipe, model: nn.Module, folder: str | None) -> ModelFamily:
    """The family, saving a model with adapters as the recipe says. `folder`: where the base lies."""
    adapter, base = recipe.sections["adapter"], recipe.sections["model"].pretrained
    if adapter.kind == "none":
        return family
    assert folder is not None
    if adapter.export == "adapter":
        check_base(model, Path(folder))
        base = str(Path(folder).resolve()) if Path(base).expanduser().exists() else base
        save = lambda module, weights, folder: write_adapter(folder, adapter, family.lora, base, weights)
    else:
        save = lambda module, weights, folder: family.save(module, merged(weights, adapter.scale), folder)
    return dataclasses.replace(family, save=save)


def describe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, a sentence above each setting, and where each value came from."""
    return describe_recipe(recipe, {"training": _length(recipe)})


def _contradictions(recipe: Recipe) -> list[str]:
    """What settings of several sections say against each other, a line a problem."""
    data, training, validation = (recipe.sections[name] for name in ("data", "training", "validation"))
    problems = {one.key: one.sentence for one in data.contradictions(validation)}
    if recipe.sections["adapter"].kind != "none":
        if recipe.sections["model"].pretrained is None:
            problems["adapter.kind"] = "there is nothing to adapt without model.pretrained; set it, or train the whole."
        if given := [name for name in ("train_only", "freeze") if getattr(training, name)]:
            problems[f"training.{given[0]}"] = "an adapter freezes everything beside it; remove one of the two."
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
    size: tuple[int, int],
) -> dict[str, dict[str, Any]]:
    """What a run says of itself before its first step: titled sections of labels and values."""
    model, data, training = (recipe.sections[name] for name in ("model", "data", "training"))
    optimizer, parallel = recipe.sections["optimizer"], recipe.sections["parallel"]
    dtype = autocast_dtype(training.precision, process.device)
    every = recipe.sections["validation"].steps
    num_parameters, num_trained = size
    share = f"{num_trained:,} ({num_trained / num_parameters:.2%})"
    return {
        "Model": {
            "family": model.family,
            "start": model.pretrained or f"random values, size {model.size}",
            "parameters": num_parameters,
            **({"trained": share} if num_trained < num_parameters else {}),
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
            "validation": f"{held_out.num_windows:,} samples every {every:,} steps" if held_out else "none",
            "benchmark": _tiers(recipe),
        },
    }


def _card(
    recipe: Recipe, run_dir: Path, family: ModelFamily, banner: Mapping[str, Mapping[str, Any]]
) -> Callable[[int], str]:
    """The model card of a step: the banner, without the paths of this machine."""
    base = recipe.sections["model"].pretrained
    is_path = base is not None and Path(base).exists()
    start = {"start": "the weights of an earlier run or a folder"} if is_path else {}
    facts = {**banner, "Model": {**banner["Model"], **start}}
    return lambda step: model_card(run_dir.name, family, facts, base=None if is_path else base, step=step)


_LONG_SECONDS = 3600.0


def _warn_of_cost(flops: float, world_size: int) -> None:
    """Say what a long run will take on a CPU, before it has taken it: FLOPs by the speed of a matrix product here."""
    side = 384
    a = torch.ones(side, side)
    seconds = min(timeit.repeat(lambda: a @ a, number=1, repeat=4))
    least = flops / world_size * seconds / (2 * side**3)
    if least > _LONG_SECONDS:
        logger.warning(
            "on this CPU the run takes at least %s to its last step (%.2g FLOPs). Fewer training.steps, shorter "
            "windows or a smaller model cost less; docs/aws_gpu.md says how to get a GPU.",
            f"{least / 86400:,.0f} days" if least > 2 * 86400 else f"{least / 3600:,.1f} hours",
            flops,
        )


def _source_in_words(source: SourceStatistics) -> str:
    left_out = "".join(f" ({number:,} {reason})" for reason, number in source.left_out.items() if number)
    roles = f"; {source.roles}" if source.roles else ""
    return f"{source.num_items:,} {source.unit}, {source.share:.0%} of the samples{left_out}{roles}"


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
    data, training = recipe.sections["data"], recipe.sections["training"]
    if data.why_endless() or not data.is_there():
        return {}
    num_batches = BatchLoader(
        data.open(training.seed, batch_size=training.batch_size), batch_size=training.batch_size
    ).num_epoch_batches
    assert num_batches is not None
    if training.epochs is None:
        return {"epochs": float(f"{training.num_steps / num_batches:.3g}")}
    return {"steps": training.in_steps(num_batches).steps}
