"""Suites: the published lists of evaluation tasks, as data, and where their data sets lie on this machine."""

from foreloom.evaluation.suites.find import Found, MissingTask, find_data, missing_sentence, suite_tasks
from foreloom.evaluation.suites.suite import Suite, SuiteTask, load, names

__all__ = [
    "Found",
    "MissingTask",
    "Suite",
    "SuiteTask",
    "find_data",
    "load",
    "missing_sentence",
    "names",
    "suite_tasks",
]
