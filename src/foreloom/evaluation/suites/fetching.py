"""What `foreloom data fetch SUITE` brings: the data sets of a suite, each once, where its tasks look for them."""

from __future__ import annotations

from pathlib import PurePosixPath

from foreloom.data.fetch.entry import FetchEntry
from foreloom.evaluation.suites.suite import Suite


def fetch_entries(suite: Suite) -> list[FetchEntry]:
    """One entry a data set, named as its folder or file in the repository; tasks of the same data share one."""
    configs = dict.fromkeys((task.repo, task.config) for task in suite.tasks)
    return [FetchEntry(config, repo, config, _folder(config)) for repo, config in configs]


def _folder(config: str) -> str:
    """The folder named like the configuration; a file goes into the folder it has in the repository."""
    path = PurePosixPath(config)
    return str(path.parent if path.suffix else path)
