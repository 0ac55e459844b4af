"""Where the data sets of a suite lie below a data root, and the suite as evaluation tasks over those that are there.

Layouts below the root, tried in this order for every place a task names: the place in a copy of the hub repository
(`chronos_datasets/m4_daily`, which is where `foreloom data fetch` puts it), and the place itself (`m4_daily`,
GIFT-Eval's `ett1/H`, `ETTh1.csv`). Each may be whatever `open_source` opens: a `save_to_disk` folder, Parquet,
Arrow, CSV. Nothing is ever fetched from here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom.data.formats.reader import open_source
from foreloom.evaluation.suites.columns import readable
from foreloom.evaluation.suites.fetch import is_unfinished
from foreloom.evaluation.suites.suite import Suite, SuiteTask, load
from foreloom.evaluation.tasks import EvaluationTask

_TEST_SHARE = 10
"""GIFT-Eval keeps a tenth of its shortest series for windows."""
_MAX_ROLLS = 20


@dataclass(frozen=True)
class Found:
    """A task with its data: one path, or several that are one set."""

    task: SuiteTask
    paths: tuple[Path, ...]


def suite_tasks(name: str | Path, data_root: str | Path | None = None) -> tuple[list[EvaluationTask], list[str]]:
    """The tasks of a suite whose data lies below `data_root`, ready for `evaluate`, and the names of those whose
    data does not.

    The root may be left out where the suite's own variable (`$GIFT_EVAL`, `$FEV_DATASETS_PREFIX`) names one. Raises
    ValueError for an unknown suite or root, for a suite that is not scored on windows, and for data that lacks what its
    task needs.
    """
    suite = load(name)
    if suite.protocol != "windows":
        raise ValueError(
            f"{suite.name}: this suite scores scaled values ({suite.protocol}), not windows of raw ones. Its data is "
            "found by `find_data`."
        )
    found, missing = find_data(suite, data_root)
    return [_evaluation_task(one, suite) for one in found], missing


def find_data(suite: Suite, data_root: str | Path | None = None) -> tuple[list[Found], list[str]]:
    """The tasks of a suite with the paths of their data, and the names of those without; both in the suite's order."""
    root = data_root_of(suite, data_root)
    found: list[Found] = []
    missing: list[str] = []
    for task in suite.tasks:
        paths = next((paths for paths in _candidates(task, root) if all(map(_is_data, paths))), None)
        if paths is None:
            missing.append(task.name)
        else:
            found.append(Found(task, paths))
    return found, missing


def data_root_of(suite: Suite, data_root: str | Path | None = None) -> Path:
    """`data_root`, or the folder that the suite's own variable names; ValueError where neither is one."""
    stated = data_root or (os.environ.get(suite.variable) if suite.variable else None)
    if not stated:
        variable = f", or set {suite.variable}" if suite.variable else ""
        raise ValueError(f"{suite.name}: say where its data sets lie with --data-root{variable}.")
    root = Path(stated).expanduser()
    if not root.is_dir():
        raise ValueError(
            f"{root}: there is no such folder. Fetch the data with: foreloom data fetch {suite.name} --out {root}"
        )
    return root


def missing_sentence(suite: Suite, missing: Sequence[str], data_root: str | Path) -> str:
    """What is not there and the command that fetches it, for people; empty where nothing is missing."""
    if not missing:
        return ""
    listed = ", ".join(missing)
    return (
        f"{len(missing)} of the {len(suite.tasks)} tasks of {suite.name} have no data below {data_root}: {listed}. "
        f"Fetch it with: foreloom data fetch {suite.name} --out {data_root}"
    )


def _candidates(task: SuiteTask, root: Path) -> list[tuple[Path, ...]]:
    folders = (root / task.repo.rpartition("/")[2], root)
    places = task.places or (task.config,)
    return [tuple(folder / part.strip() for part in place.split(" + ")) for place in places for folder in folders]


def _is_data(path: Path) -> bool:
    """A file, or a folder with files (GIFT-Eval's `us_births` only holds folders), that is whole as far as we know."""
    there = any(entry.is_file() for entry in path.iterdir()) if path.is_dir() else path.is_file()
    return there and not is_unfinished(path)


def _evaluation_task(found: Found, suite: Suite) -> EvaluationTask:
    task = found.task
    paths = tuple(readable(path, task) for path in found.paths)
    return EvaluationTask(
        name=task.name,
        path=paths if len(paths) > 1 else paths[0],
        prediction_length=task.prediction_length,
        num_rolls=task.num_rolls or _rolls(paths, task.prediction_length),
        stride=task.stride,
        offset=task.offset,
        first_cut=task.first_cut,
        min_past=task.min_past,
        season_length=task.season_length,
        variates="joint" if len(task.targets) > 1 else "split",
        average_over=suite.average_over,
        covariates=bool(task.past or task.future),
    )


def _rolls(paths: Sequence[Path], prediction_length: int) -> int:
    """As many windows as begin in the last tenth of the shortest series."""
    shortest = min(int(open_source(path).lengths.min()) for path in paths)
    return min(max(1, -(-shortest // (_TEST_SHARE * prediction_length))), _MAX_ROLLS)
