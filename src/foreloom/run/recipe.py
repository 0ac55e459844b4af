"""A recipe as a whole: what it is made of, read with its files found, and what its sections say against each other."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from foreloom.checkpoint.checkpointer import CheckpointConfig
from foreloom.checkpoint.locate import find_model_folder
from foreloom.checkpoint.manifest import VALIDATION_LOSS
from foreloom.config.loader import (
    COMMAND_LINE,
    Recipe,
    SectionChoice,
    describe_recipe,
    flatten,
    line_of,
    plain,
    read_recipe,
)
from foreloom.config.located import RecipeError, read_yaml
from foreloom.config.shipped import find_example
from foreloom.data.batch import DataSection
from foreloom.data.loader import BatchLoader
from foreloom.distributed.mesh import ParallelConfig
from foreloom.evaluation.config import BENCHMARK_SCORES, BenchmarkConfig, is_file_of_tasks, tier_tasks
from foreloom.files import write_text
from foreloom.models import registry
from foreloom.models.common.lora import AdapterConfig, attach_adapter
from foreloom.models.common.parametrization import ParametrizationConfig
from foreloom.models.family import series
from foreloom.monitoring.monitor import MonitoringConfig
from foreloom.training.config import TrainingConfig, freeze
from foreloom.training.optimizer import OptimizerConfig

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
    "parametrization": ParametrizationConfig,
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
    recipe = read_recipe(path, overrides, SECTIONS)
    if hanging := _hangs_on_validation(recipe):
        recipe = read_recipe(path, [*hanging, *overrides], SECTIONS)
    sections, missing = find_files(recipe, need_data=need_data)
    problems = list(recipe.problems) or _contradictions(recipe)
    if problems := problems + missing:
        raise RecipeError(sorted(problems, key=line_of))
    return dataclasses.replace(recipe, sections=sections)


def _hangs_on_validation(recipe: Recipe) -> list[str]:
    """Who turns validation off on the command line turns off with it what the recipe's file hangs on it."""
    values, place = recipe.located.values, COMMAND_LINE
    validation = values.get("validation")
    if not isinstance(validation, Mapping) or validation.get("steps") != 0 or recipe.where("validation.steps") != place:
        return []
    settings = {name: value for name, value in _data_section(values).validation.ABSENT.items() if name in validation}
    return [
        f"validation.{name}={value}" for name, value in settings.items() if recipe.where(f"validation.{name}") != place
    ]


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


_MAYBE_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
"""A name, or owner/name; what has more slashes, or begins with one, a point or a tilde, can only be a path."""


def find_files(recipe: Recipe, *, need_data: bool) -> tuple[Mapping[str, Any], list[str]]:
    """The recipe's sections with every path found, as far as it is there, and a line for each problem. Sections that
    are wrong, and so not there, are passed over.

    A relative path is looked for beside the file that names it, then in the working directory. `need_data` makes data
    that are not there a problem; an address of synthetic data that is wrong always is one.
    """
    sections = dict(recipe.sections)
    problems: list[str] = []
    if {"data", "validation"} <= sections.keys():
        sections["data"], sections["validation"], found = sections["data"].find_files(
            sections["validation"], lambda path, key: find(path, recipe.where(key))
        )
        problems = [
            f"{recipe.where(one.key)}: {one.key}: {one.sentence}" for one in found if need_data or not one.is_missing
        ]
    pretrained = getattr(sections.get("model"), "pretrained", None)
    if pretrained is not None:
        where = recipe.where("model.pretrained")
        if folder := find(pretrained, where):
            sections["model"] = dataclasses.replace(sections["model"], pretrained=str(folder))
        elif need_data and not _MAYBE_HUB_ID.fullmatch(pretrained):
            problems.append(f"{where}: model.pretrained: no such folder, and no hub id: {pretrained}.")
    if "benchmark" in sections:
        sections["benchmark"] = _benchmark(recipe)
        if need_data and sections["benchmark"].steps:
            try:
                tier_tasks(sections["benchmark"])
            except ValueError as error:
                problems += [f"{recipe.where('benchmark')}: benchmark: {line}" for line in str(error).splitlines()]
    return sections, problems


def _benchmark(recipe: Recipe) -> BenchmarkConfig:
    """The benchmark's section with the files and folders it names found, as far as they are there."""
    config = recipe.sections["benchmark"]
    found = {}
    for name in ("tasks", "extended_tasks", "suite", "extended_suite", "data_root"):
        value = getattr(config, name)
        is_path = value is not None and (not name.endswith("suite") or is_file_of_tasks(value))
        if is_path and (path := find(value, recipe.where(f"benchmark.{name}"))):
            found[name] = str(path)
    return dataclasses.replace(config, **found)


def find(path: str, where: str) -> Path | None:
    """An existing path: as given if absolute, else beside the file of `where` (file:line), else in the cwd.

    `examples/...` is found from anywhere.
    """
    given = Path(path).expanduser()
    folders = [Path(where.rpartition(":")[0]).parent, Path()] if where != COMMAND_LINE else [Path()]
    candidates = [*(folder / given for folder in folders), find_example(given)]
    return next((found.resolve() for found in candidates if found.exists()), None)


def data_of(recipe: Recipe) -> DataSection:
    """The data section with what the model decides of it. A pretrained model is looked for, or downloaded, only where
    it decides something."""
    model, data = recipe.sections["model"], recipe.sections["data"]
    data_for = registry.get(model.family).data_for
    return data if data_for(model, data) is data else data_for(found_model(recipe), data)


def found_model(recipe: Recipe) -> Any:
    """The model section with the folder of its pretrained model, downloaded where it is a hub id."""
    model = recipe.sections["model"]
    if model.pretrained is None:
        return model
    return dataclasses.replace(model, pretrained=str(find_model_folder(model.pretrained)))


def choose_trained(model: nn.Module, recipe: Recipe) -> None:
    """Attach the adapter, or freeze what the recipe says, in place."""
    adapter, training = recipe.sections["adapter"], recipe.sections["training"]
    if adapter.kind == "lora":
        attach_adapter(model, adapter, registry.get(recipe.sections["model"].family).lora, training.seed)
    else:
        freeze(model, training)


def describe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, a sentence above each setting, and where each value came from."""
    return describe_recipe(recipe, {"training": _length(recipe)})


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


def config_hash(recipe: Recipe) -> str:
    """Of the settings that decide what is computed: where it is written and how it is watched does not count."""
    computed = {name: dataclasses.asdict(section) for name, section in recipe.sections.items() if name != "monitoring"}
    computed["training"].pop("output_dir")
    return hashlib.sha256(repr(computed).encode()).hexdigest()[:16]


def write_recipe(recipe: Recipe, run_dir: Path) -> list[str]:
    """Put the resolved recipe into the run folder; what differs from the one that lay there, a line a setting, but for
    what the console shows."""
    path = run_dir / RECIPE_NAME
    before = flatten(read_yaml(path).values) if path.is_file() else {}
    header = f"# Resolved from {recipe.path.name}; training it again gives this run."
    write_text(path, f"{header}\n{recipe.to_yaml()}")
    after = flatten(plain(recipe.sections))
    keys = dict.fromkeys([*before, *after]) if before else {}
    changed = [key for key in keys if before.get(key) != after.get(key) and key != "monitoring.quiet"]
    return [f"{key} {before.get(key)} -> {after.get(key)}" for key in changed]
