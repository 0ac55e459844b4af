"""A study: runs that answer one question, from a YAML file, from lists of experiments in Python, or a preset."""

from __future__ import annotations

import difflib
import itertools
import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from foreloom.config.loader import plain, validate
from foreloom.config.located import RecipeError, read_yaml
from foreloom.config.section import section
from foreloom.config.shipped import shipped_recipes
from foreloom.lab.study.experiments import (
    Experiment,
    create_multi_lr_experiments,
    create_multi_seed_experiments,
    flat,
)
from foreloom.lab.study.labels import check_distinct, check_label
from foreloom.lab.study.presets import PRESETS
from foreloom.lab.study.resolve import Planned, resolve
from foreloom.lab.study.settings import FROM_FILE


@section
class StudyFile:
    """A study in YAML: the runs of `runs`, and those of every combination of `grid`."""

    study: Annotated[str, Field(min_length=1)]
    """Name of the study and of the folder of its results."""
    recipe: str | None = None
    """Of every run that names none: a file, beside this one, or a shipped recipe."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Overrides of every run."""
    grid: Mapping[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Override -> its values: a run for each combination."""
    label: str | None = None
    """Of a run of the grid, with its values in braces: {hidden_dim}d_{activation}. Unset: name=value of each."""
    runs: tuple[Mapping[str, Any], ...] = ()
    """Runs one by one: label, folder_name where it is another than the study's, and overrides."""
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Each run once a rate, as create_multi_lr_experiments has it."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Each run once a seed."""

    def __post_init__(self) -> None:
        if not self.grid and not self.runs:
            raise ValueError("a study has runs, or a grid that makes them; give one of the two")
        if self.label is not None and not self.grid:
            raise ValueError("label has no effect without a grid; give each of runs its own")


@dataclass(frozen=True)
class Study:
    """Runs under one name, before anything of them has been looked at."""

    name: str
    runs: tuple[tuple[str, str, Mapping[str, Any]], ...]
    """(folder, label, overrides) each."""

    @classmethod
    def of(cls, name: str, experiments: Sequence[Experiment], common: Mapping[str, Any] | None = None) -> Study:
        """A study of a list of experiments, with `common` overrides for all. ValueError for labels that would write
        one file, or none."""
        check_label(name)
        runs = tuple((folder, label, {**given, **(common or {})}) for folder, label, given in flat(experiments, name))
        check_distinct((folder, label) for folder, label, _ in runs)
        if not runs:
            raise ValueError(f"the study {name} has no runs.")
        return cls(name, runs)

    def resolve(self) -> list[Planned]:
        """Every run with all its settings. ValueError tells what is wrong with all of them."""
        planned, problems = [], []
        for run in self.runs:
            try:
                planned.append(resolve(*run))
            except RecipeError as error:
                problems += error.problems
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise RecipeError(problems)
        return planned

    def to_yaml(self) -> str:
        """A study file of the same runs, each written out."""
        runs = [
            {"label": label, **({} if folder == self.name else {"folder_name": folder}), **given}
            for folder, label, given in self.runs
        ]
        return yaml.safe_dump({"study": self.name, "runs": plain(runs)}, sort_keys=False, allow_unicode=True, width=120)


def find_study(text: str, common: Mapping[str, Any] | None = None) -> Study:
    """The study that `text` names: a YAML file; `file.py:NAME`, a list of experiments; or a preset."""
    file, _, variable = text.partition(".py:")
    if variable or text.endswith(".py"):
        path = Path(f"{file}.py" if variable else text)
        return Study.of(variable.lower(), _experiments_of(path, variable), common)
    path = Path(text)
    if path.is_file():
        return read_study(path, common)
    if text in PRESETS:
        return Study.of(text, PRESETS[text].build(), common)
    close = difflib.get_close_matches(text, PRESETS, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"{text}: no such file, and no preset of that name ({', '.join(PRESETS)}).{hint} A study is a YAML file, "
        "file.py:NAME or a preset; `foreloom lab list` tells of these."
    )


def _experiments_of(path: Path, variable: str) -> Sequence[Experiment]:
    """What a Python file, which is run, calls by a name."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    values = runpy.run_path(str(path))
    lists = [
        name
        for name, value in values.items()
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value)
    ]
    if variable not in lists:
        known = f"It has {', '.join(lists)}." if lists else "It has none."
        asked = f"{variable} is no list of experiments" if variable else "name one of its lists of experiments"
        raise ValueError(f"{path}: {asked}, as in {path}:{lists[0] if lists else 'NAME'}. {known}")
    return values[variable]


def read_study(path: Path, common: Mapping[str, Any] | None = None) -> Study:
    """A study file. RecipeError tells all that is wrong with it, with file and line."""
    located = read_yaml(path)
    if not isinstance(located.values, Mapping):
        raise RecipeError([f"{path}: expected a study (study, recipe, grid ...), got {located.values!r:.60}."])
    file, problems = validate(StudyFile, located.values, located, "")
    if problems:
        raise RecipeError(problems)
    experiments: list[Experiment] = []
    for number, run in enumerate(file.runs):
        own = dict(run)
        label, folder = own.pop("label", None), own.pop("folder_name", "")
        if not isinstance(label, str):
            raise RecipeError([f"{located.where(f'runs.{number}')}: runs.{number}.label: a text is required."])
        experiments.append({"name": folder, "subexperiments": [_run(path, file, label, own)]})
    if file.grid:
        made = [_run(path, file, *one) for one in _combinations(path, file)]
        experiments.append({"name": "", "subexperiments": made})
    if file.learning_rates:
        experiments = create_multi_lr_experiments(experiments, file.learning_rates)
    if file.seeds:
        experiments = create_multi_seed_experiments(experiments, file.seeds)
    return Study.of(file.study, experiments, common)


def _run(path: Path, file: StudyFile, label: str, own: Mapping[str, Any]) -> Any:
    given = {"recipe": file.recipe, **file.settings, **own}
    if given["recipe"] is None:
        raise RecipeError([f"{path}: {label}: no recipe is named; write recipe: decoder-tiny, or another."])
    beside = path.parent / str(given["recipe"])
    if given["recipe"] not in shipped_recipes() and beside.is_file():
        given["recipe"] = str(beside.resolve())
    for name, value in given.items():
        if isinstance(value, str) and value.startswith(FROM_FILE):
            fit = path.parent / value.removeprefix(FROM_FILE)
            given[name] = f"{FROM_FILE}{fit.resolve()}" if fit.is_file() else value
    return {"label": label, "overrides": given}


def _combinations(path: Path, file: StudyFile) -> list[tuple[str, dict[str, Any]]]:
    """Labels and overrides of the grid."""
    found = []
    for values in itertools.product(*file.grid.values()):
        own = dict(zip(file.grid, values, strict=True))
        if file.label is None:
            label = "_".join(f"{name.rpartition('.')[2]}={value}" for name, value in own.items())
        else:
            names = set(re.findall(r"{([^{}]*)}", file.label))
            if unknown := names - own.keys():
                raise RecipeError([f"{path}: label: {sorted(unknown)[0]!r} is not in the grid ({', '.join(own)})."])
            label = re.sub(r"{([^{}]*)}", lambda name, own=own: str(own[name[1]]), file.label)
        found.append((label, own))
    return found
