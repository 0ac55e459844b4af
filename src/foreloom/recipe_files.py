"""The files a recipe names: found where its reader would look for them, or told of with their lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreloom.config.loader import Recipe
from foreloom.evaluation.config import BenchmarkConfig, is_file_of_tasks, tier_tasks


def find_files(recipe: Recipe, *, need_data: bool) -> tuple[Mapping[str, Any], list[str]]:
    """The recipe's sections with every path found, as far as it is there, and a line for each problem.

    A relative path is looked for beside the file that names it, then in the working directory. `need_data` makes data
    that are not there a problem; an address of synthetic data that is wrong always is one.
    """
    sections = dict(recipe.sections)
    sections["data"], sections["validation"], found = sections["data"].find_files(
        sections["validation"], lambda path, key: find(path, recipe.where(key))
    )
    problems = [
        f"{recipe.where(one.key)}: {one.key}: {one.sentence}" for one in found if need_data or not one.is_missing
    ]
    pretrained = getattr(sections["model"], "pretrained", None)
    if pretrained is not None and (folder := find(pretrained, recipe.where("model.pretrained"))):
        sections["model"] = dataclasses.replace(sections["model"], pretrained=str(folder))
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
    """An existing path: as given if absolute, else beside the file of `where` (file:line), else in the cwd."""
    given = Path(path).expanduser()
    folders = [Path(where.rpartition(":")[0]).parent, Path()] if where != "command line" else [Path()]
    return next((found.resolve() for folder in folders if (found := folder / given).exists()), None)
