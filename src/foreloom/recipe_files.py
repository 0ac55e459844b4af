"""The files a recipe names: found where its reader would look for them, or told of with their lines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreloom.config.loader import Recipe
from foreloom.config.shipped import find_example
from foreloom.evaluation.config import BenchmarkConfig, is_file_of_tasks, tier_tasks

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
    folders = [Path(where.rpartition(":")[0]).parent, Path()] if where != "command line" else [Path()]
    candidates = [*(folder / given for folder in folders), find_example(given)]
    return next((found.resolve() for found in candidates if found.exists()), None)
