"""What `foreloom data fetch SUITE` brings: the data sets of a suite, and where each lies on the hub."""

from __future__ import annotations

from pathlib import PurePosixPath

from foreloom.data.fetch import FetchEntry
from foreloom.evaluation.suites.suite import Suite, SuiteTask

_HELD_ELSEWHERE = {
    # The repository holds only a script, which `datasets` 4 does not run; the same table lies here as Parquet.
    ("autogluon/chronos_datasets_extra", "ETTh"): ("autogluon/fev_datasets", "ETT_1H"),
    ("autogluon/chronos_datasets_extra", "ETTm"): ("autogluon/fev_datasets", "ETT_15T"),
}


def fetch_entries(suite: Suite) -> list[FetchEntry]:
    """The data sets of a suite, each once, in its order.

    Each gets a folder named after repository and configuration (`chronos_datasets/m4_daily`), so that suites share a
    data root: m4_daily of GIFT-Eval is another one.
    """
    return list(dict.fromkeys(_entry(task) for task in suite.tasks))


def _entry(task: SuiteTask) -> FetchEntry:
    repo, config = _HELD_ELSEWHERE.get((task.repo, task.config), (task.repo, task.config))
    place = PurePosixPath(task.config)
    folder = PurePosixPath(task.repo).name / (place.parent if place.suffix else place)
    return FetchEntry(place.stem if place.suffix else task.config, repo, config, str(folder))
