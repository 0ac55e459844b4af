"""Forecasts of a test's runs, scored on what its recipes hold out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreloom.config.loader import Recipe
from foreloom.data.reader import open_source
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.skill import geometric_mean
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.files import strict_json, write_text
from foreloom.forecast import from_pretrained
from foreloom.models.family import Forecaster
from foreloom.report.ab.measures import WQL

FILE_NAME = "ab-scores.json"
"""In a run folder: scores by task, beside the tasks they are of."""
MOST_SERIES = 20_000
"""Of a source that is scored without being asked for; more take longer than a comparison should."""

Scores = Mapping[str, float]
"""Task -> WQL."""


def held_out_tasks(recipe: Recipe) -> list[EvaluationTask]:
    """The last window of every series of each source that holds something out; of `validation.sources` where given.

    The horizon is data.prediction_length, shorter where less is held out. ValueError for a source of very many series.
    """
    data, validation = recipe.sections["data"], recipe.sections["validation"]
    sources = validation.sources or [source for source in data.sources if source.holdout]
    stems = [Path(source.path).stem for source in sources]
    tasks = []
    for source, stem in zip(sources, stems, strict=True):
        num_series = len(open_source(source.path))
        if num_series > MOST_SERIES:
            raise ValueError(
                f"{source.path} has {num_series:,} series, too many to forecast each of them; name tasks with --tasks "
                "(a list of data sets, horizons and windows, see docs/evaluation.md)."
            )
        tasks.append(
            EvaluationTask(
                name=stem if stems.count(stem) == 1 else source.path,
                path=Path(source.path),
                prediction_length=min(data.prediction_length, source.holdout or data.prediction_length),
            )
        )
    return tasks


def score_run(folder: Path, tasks: Sequence[EvaluationTask], device: str) -> Scores:
    """The WQL of a finished run on each task; what an earlier call has found for the same tasks is taken as it is."""
    described = json.loads(json.dumps([strict_json(_described(task)) for task in tasks]))
    path = folder / FILE_NAME
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["tasks"] == described:
            return known["wql"]
    scores = _scores(from_pretrained(folder, device=device).forecaster, tasks)
    write_text(path, json.dumps({"tasks": described, "wql": scores}, indent=1))
    return scores


def score_baseline(tasks: Sequence[EvaluationTask]) -> Scores:
    """Seasonal Naive's."""
    return _scores(SeasonalNaive(), tasks)


def summary(scores: Scores, baseline: Scores) -> dict[str, float]:
    """The mean WQL over tasks, and the geometric mean of WQL over the baseline's where that errs at all."""
    ratios = [score / baseline[task] for task, score in scores.items() if baseline[task]]
    relative = {"wql_relative": geometric_mean(ratios)} if ratios else {}
    return {WQL: sum(scores.values()) / len(scores), **relative} if scores else {}


def _scores(forecaster: Forecaster, tasks: Sequence[EvaluationTask]) -> dict[str, float]:
    """Tasks without a label to be scored on are left out."""
    found = {task.name: task.scores["WQL"] for task in evaluate(forecaster, tasks).tasks}
    return {task: score for task, score in found.items() if math.isfinite(score)}


def _described(task: EvaluationTask) -> dict[str, Any]:
    """With the state of the data, so that scores on data that have changed are not taken for those on the new."""
    return {**vars(task), "fingerprints": [open_source(path).fingerprint for path in task.paths]}
