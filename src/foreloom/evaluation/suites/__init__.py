"""Suites: the published lists of evaluation tasks, as data, and where their data sets lie on this machine."""

from foreloom.evaluation.suites.find import Found, data_root_of, find_data, missing_sentence, suite_tasks
from foreloom.evaluation.suites.suite import Suite, SuiteTask, load, names

__all__ = [
    "Found",
    "Suite",
    "SuiteTask",
    "data_root_of",
    "find_data",
    "load",
    "missing_sentence",
    "names",
    "suite_tasks",
]
