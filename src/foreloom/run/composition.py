"""The composition root: a recipe becomes a trainer here and nowhere else. `train` is what `foreloom train` calls."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from foreloom.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from foreloom.checkpoint.claim import check_folder
from foreloom.config.loader import Recipe, flatten, plain
from foreloom.data.loader import BatchLoader
from foreloom.distributed.agreement import check_agreement
from foreloom.distributed.launcher import is_restart
from foreloom.distributed.parallelize import parallelize
from foreloom.distributed.process import Process, absent_ranks, among_ranks, is_of_peers, prepare, start
from foreloom.distributed.reduce import from_rank_zero, max_over_ranks
from foreloom.evaluation.benchmark import TrainingBenchmark
from foreloom.evaluation.config import tier_tasks
from foreloom.models import registry
from foreloom.models.common.lora import FrozenWeights, check_base, merged, write_adapter
from foreloom.models.family import ModelFamily
from foreloom.models.lookbacks import forecaster_of
from foreloom.monitoring.monitor import Monitor
from foreloom.run.banner import banner_of, card_of, warn_of_cost
from foreloom.run.machine import choose_threads, find_machine, ranks_on_machine, use_threads
from foreloom.run.micro_batch import automatic_micro_batch
from foreloom.run.parametrize import Parametrized, parametrize
from foreloom.run.recipe import choose_trained, config_hash, data_of, found_model, load, write_recipe
from foreloom.training.config import TrainingConfig, autocast_dtype
from foreloom.training.optimizer import build_optimizer
from foreloom.training.scoring import Validation
from foreloom.training.step import is_out_of_memory
from foreloom.training.trainer import Trainer, TrainResult

logger = logging.getLogger(__name__)


def train(
    path: str | Path, overrides: Sequence[str] = (), *, out: str | Path | None = None, resume: bool = False
) -> TrainResult:
    """Run a recipe to its end, or go on with a run that was stopped (`resume`). Collective under torchrun.

    `out` is the run folder (default: `training.output_dir`, else runs/<recipe's name>). A run that torchrun or SLURM
    has started anew goes on by itself. Raises ValueError with a sentence for whatever the recipe, the data, the folder
    or the memory do not allow.
    """
    try:
        with among_ranks():
            recipe = prepare(lambda: load(path, overrides), lambda read: read.sections["parallel"].timeout_minutes)
            training, parallel = recipe.sections["training"], recipe.sections["parallel"]
            run_dir = Path(out or training.output_dir or Path("runs") / recipe.path.stem)
            recipe = _settle(recipe, run_dir)
            process = start(
                training.device, group_of_one=parallel.strategy != "auto", timeout_minutes=parallel.timeout_minutes
            )
            _use_threads(training, process)
            # A machine that has come anew has not been restarted; the others have.
            resume = bool(max_over_ranks(resume or is_restart(os.environ), process))
            return build(recipe, run_dir, process, resume=resume).train()
    except (RuntimeError, MemoryError) as error:
        if (sentence := _in_words(error)) is None:
            raise
        raise ValueError(sentence) from error


def _use_threads(training: TrainingConfig, process: Process) -> None:
    """What this rank may have of the machine's cores, for torch."""
    threads = choose_threads(
        find_machine(),
        ranks_here=ranks_on_machine(world_size=process.world_size),
        force_conservative_cpu=training.force_conservative_cpu,
    )
    if use_threads(threads) and process.is_main:
        logger.info("torch computes on %d threads: %s", threads.num_threads, threads.reason)


def _in_words(error: RuntimeError | MemoryError) -> str | None:
    """What a run may end by that is nobody's mistake in the code; None for anything else."""
    first_line = str(error).strip().partition("\n")[0]
    if is_out_of_memory(error):
        return (
            f"there is not enough memory ({first_line or 'MemoryError'}). Lower training.micro_batch_size, "
            "data.context_length or data.num_prefetch, or end what else runs on this machine"
        )
    if isinstance(error, RuntimeError) and is_of_peers(error):
        absent = absent_ranks()
        who, again = absent.in_words, "--resume goes on from the newest checkpoint"
        if absent.stands:
            late = f"{who} did not come within parallel.timeout_minutes to what others waited for ({first_line})"
            return f"{late}. {again}. Rank {absent.ranks[0]} stands here, innermost call last:\n{absent.stands}"
        return (
            f"{who or 'another rank'} has gone or does not answer ({first_line}). If it said nothing, it was killed, "
            f"by the system for want of memory perhaps. {again}"
        )
    return None


def build(recipe: Recipe, run_dir: Path, process: Process, *, resume: bool = False) -> Trainer:
    """The composition root: sections in, a trainer ready to `train()` out."""
    training = recipe.sections["training"]
    assert isinstance(training, TrainingConfig)
    model_config, data = found_model(recipe), data_of(recipe)
    family = registry.get(model_config.family)
    optimizer_config, validation = recipe.sections["optimizer"], recipe.sections["validation"]
    _agree(recipe, run_dir, process)
    dataset = data.open(training.seed, batch_size=training.batch_size)
    counted = None
    if training.micro_batch_size == "auto":
        counted = automatic_micro_batch(recipe, dataset.largest, process)
        training = training.with_micro_batches(counted.num_rows)
    ranks = {"rank": process.rank, "world_size": process.world_size}
    loader = BatchLoader(
        dataset,
        batch_size=training.batch_size,
        micro_batch_size=training.num_micro_rows,
        num_prefetch=data.num_prefetch,
        **ranks,
    )
    training = training.in_steps(loader.num_epoch_batches)
    learning_rate = functools.partial(optimizer_config.learning_rate_of, num_updates=training.num_steps)
    learning_rate(1)  # a schedule that does not fit is told before any work
    share = training.num_micro_rows or -(-training.batch_size // process.world_size)
    held_out = data.held_out(validation, dataset, micro_batch_size=share, **ranks)
    monitor = Monitor(run_dir, training.num_steps, recipe.sections["monitoring"], process.is_main)
    scaled = parametrize(family, model_config, data, recipe.sections["parametrization"], optimizer_config)
    model = _model(recipe, family, scaled)
    frozen = None if all(p.requires_grad for p in model.parameters()) else FrozenWeights(model)
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
    banner = banner_of(recipe, process, loader, held_out, training.num_steps, (num_parameters, num_trained))
    if process.device.type == "cpu" and process.is_main:
        warn_of_cost(flops_per_row * training.batch_size * training.num_steps, process.world_size)
    return Trainer(
        training,
        family,
        parallel,
        build_optimizer(
            optimizer_config,
            parallel.named_parameters(),
            kinds,
            max_grad_norm=training.max_grad_norm,
            multipliers=scaled.multipliers,
        ),
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
        counted_bytes=counted.total if counted else None,
        card=card_of(recipe, run_dir, family, banner),
        on_start=lambda: _record(recipe, run_dir, process),
    )


def _agree(recipe: Recipe, run_dir: Path, process: Process) -> None:
    """ValueError, on all ranks, where they are not of one run, or its folder takes no files."""
    check_agreement(
        {"recipe": config_hash(recipe), "run folder": str(run_dir.absolute())},
        process,
        {"recipe": lambda: {key: str(value) for key, value in flatten(plain(recipe.sections)).items()}},
    )
    from_rank_zero(lambda: check_folder(run_dir), process)


def _model(recipe: Recipe, family: ModelFamily, scaled: Parametrized) -> nn.Module:
    """With its first values, on the CPU, and what is not to be trained frozen."""
    model = family.build(scaled.section, data_of(recipe))
    if recipe.sections["model"].pretrained is None:
        family.initialize(model, recipe.sections["training"].seed)
        scaled.scale(model)
    choose_trained(model, recipe)
    return model


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


def _benchmark(recipe: Recipe, run_dir: Path, process: Process) -> TrainingBenchmark | None:
    config, model = recipe.sections["benchmark"], recipe.sections["model"]
    if not config.steps:
        return None
    family = registry.get(model.family)
    forecaster = functools.partial(forecaster_of, family)
    return TrainingBenchmark(
        config, tier_tasks(config), run_dir, forecaster, process, scores_start=model.pretrained is not None
    )


def _checkpointing(recipe: Recipe) -> CheckpointConfig:
    """The checkpoint section, best_metric filled in: the benchmark's where there is one."""
    config, benchmark = recipe.sections["checkpoint"], recipe.sections["benchmark"]
    if config.best_metric is None and benchmark.steps:
        return dataclasses.replace(config, best_metric=benchmark.metric)
    return config


def _settle(recipe: Recipe, run_dir: Path) -> Recipe:
    training = dataclasses.replace(recipe.sections["training"], output_dir=str(run_dir))
    return dataclasses.replace(recipe, sections={**recipe.sections, "training": training})


def _record(recipe: Recipe, run_dir: Path, process: Process) -> None:
    """Leave the recipe in the run folder, where a refused resume must not have changed it; say what is new in it."""
    changes = from_rank_zero(lambda: write_recipe(recipe, run_dir), process)
    for change in changes if process.is_main else []:
        logger.warning("resumed with another recipe: %s", change)
