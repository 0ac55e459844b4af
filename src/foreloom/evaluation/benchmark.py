"""The benchmark of a run: scores the model as it trains, remembers the best, and keeps a file of each evaluation.

The folder `benchmark/` of the run holds a JSON file a benchmark, which is the truth, and one table made of them.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from foreloom.distributed.process import Process
from foreloom.distributed.reduce import from_rank_zero
from foreloom.evaluation.config import BENCHMARK_SCORES, BenchmarkConfig
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.metrics import BrokenForecastError
from foreloom.evaluation.plan import plan_windows
from foreloom.evaluation.ranks import Ranks
from foreloom.evaluation.result import EvaluationResult
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.files import strict_json, write_text
from foreloom.models.family import Forecaster
from foreloom.monitoring.progress import Progress
from foreloom.monitoring.record import BenchmarkRecord, Tier

logger = logging.getLogger(__name__)

FOLDER = "benchmark"
TABLE = "benchmark.csv"


class TrainingBenchmark:
    """Scores `forecaster(model)` on the tasks of each tier, exactly as `foreloom evaluate` scores the saved model.

    All ranks construct one and call every method together. `scores_start`: is the model worth scoring before its first
    step? Call `resume` before the first `run` where a run goes on.
    """

    def __init__(
        self,
        config: BenchmarkConfig,
        tasks: Mapping[Tier, Sequence[EvaluationTask]],
        run_dir: Path,
        forecaster: Callable[[nn.Module], Forecaster],
        process: Process,
        *,
        scores_start: bool,
    ) -> None:
        self.config = config
        self._tasks, self._run_dir, self._forecaster, self._process = tasks, run_dir, forecaster, process
        self._scores_start = scores_start
        self._history: list[BenchmarkRecord] = []

    def check(self, model: nn.Module) -> None:
        """Open all data and cut them into windows once: what cannot be scored is told before the run begins."""
        forecaster, passed_over = self._forecaster(model), {}
        for task in (task for tasks in self._tasks.values() for task in tasks):
            plan = plan_windows(task, task.open(), forecaster.context_length, self.config.batch_size)
            if forecaster.is_univariate and plan.shows_covariates:
                passed_over[task.name] = None  # a task of two tiers is told once
        if passed_over:
            names = ", ".join(passed_over)
            self._warn(f"benchmark: the model sees one series at a time and passes over the covariates of {names}")

    def due(self, step: int, *, is_last: bool) -> list[Tier]:
        """The tiers to be scored on the model after `step`, but those that were already."""
        if not step and not self._scores_start:
            return []
        done = {(record.step, record.tier) for record in self._history}
        every = self.config.tiers()
        return [tier for tier in every if (step % every[tier] == 0 or is_last) and (step, tier) not in done]

    def run(self, step: int, tier: Tier, model: nn.Module, run_seconds: Callable[[], float]) -> BenchmarkRecord | None:
        """Score `model`; None, with a warning, where a forecast is not finite. Collective.

        `run_seconds()` is the time since the run began. A disk that refuses the files costs a warning.
        """
        began = time.perf_counter()
        try:
            with Progress(f"Benchmark ({tier}) after step {step:,}", self._process.is_main) as progress:
                result = evaluate(
                    self._forecaster(model),
                    self._tasks[tier],
                    batch_size=self.config.batch_size,
                    ranks=Ranks.of(self._process),
                    progress=progress,
                )
        except BrokenForecastError as error:
            self._warn(f"Benchmark ({tier}) after step {step:,}: no score. {error}")
            return None
        record = self._record(step, tier, result, time.perf_counter() - began, run_seconds())
        self._history.append(record)
        try:
            from_rank_zero(lambda: self._write(record), self._process)
        except OSError as error:
            self._warn(f"the benchmark of step {step:,} could not be written ({error}); the run goes on")
        return record

    def resume(self, step: int) -> None:
        """Go on after `step` (-1: begin): what came later is removed, what came before is remembered. Collective."""
        self._history = from_rank_zero(lambda: self._reread(step), self._process)

    def _reread(self, step: int) -> list[BenchmarkRecord]:
        drop_after(self._run_dir, step)
        history = read_records(self._run_dir)
        if history:
            write_table(self._run_dir, history, self._columns)
        return history

    def _record(
        self, step: int, tier: Tier, result: EvaluationResult, seconds: float, run_seconds: float
    ) -> BenchmarkRecord:
        tasks = {task.name: {"wql": task.scores["WQL"], "mase": task.scores["MASE"]} for task in result.tasks}
        scores = average(tasks, self.config.weights)
        metric = self.config.metric
        before = [record for record in self._history if record.tier == tier]
        ranked = {record.step: record.scores[metric] for record in before} | {step: scores[metric]}
        finite = {its_step: score for its_step, score in ranked.items() if math.isfinite(score)}
        best_step = min(finite, key=finite.__getitem__, default=None)
        spent_seconds = seconds + sum(record.seconds for record in self._history)
        return BenchmarkRecord(
            step=step,
            tier=tier,
            scores=scores,
            tasks=tasks,
            metric=metric,
            best_score=math.inf if best_step is None else finite[best_step],
            best_step=best_step,
            previous=before[-1].scores if before else None,
            seconds=seconds,
            training_share=spent_seconds / max(run_seconds, spent_seconds),
        )

    def _write(self, record: BenchmarkRecord) -> None:
        write_record(self._run_dir, record)
        write_table(self._run_dir, self._history, self._columns)

    @property
    def _columns(self) -> list[str]:
        """The tasks of all tiers and, where a recipe has changed, those scored before."""
        now = [task.name for tasks in self._tasks.values() for task in tasks]
        return list(dict.fromkeys(now + [task for record in self._history for task in record.tasks]))

    def _warn(self, sentence: str) -> None:
        if self._process.is_main:
            logger.warning(sentence)


def average(tasks: Mapping[str, Mapping[str, float]], weights: tuple[float, float]) -> dict[str, float]:
    """`wql` and `mase`, means over the tasks, and `composite`, their sum with `weights`.

    A task whose score is not defined (a MASE of constant series) is left out of its mean: whether it is depends on the
    data alone, so the mean is over the same tasks at every step.
    """
    means = {}
    for name in ("wql", "mase"):
        defined = [scores[name] for scores in tasks.values() if math.isfinite(scores[name])]
        means[name] = float(np.mean(defined)) if defined else math.nan
    return means | {"composite": weights[0] * means["wql"] + weights[1] * means["mase"]}


def json_path(run_dir: Path, step: int, tier: str) -> Path:
    """benchmark/step-00000200.json, with -extended for that tier."""
    return run_dir / FOLDER / f"step-{step:08d}{'' if tier == 'lite' else f'-{tier}'}.json"


def write_record(run_dir: Path, record: BenchmarkRecord) -> None:
    """One benchmark as JSON, whole or absent; what is not a number is null."""
    path = json_path(run_dir, record.step, record.tier)
    write_text(path, json.dumps(strict_json(dataclasses.asdict(record)), indent=1, allow_nan=False) + "\n")


def read_records(run_dir: Path) -> list[BenchmarkRecord]:
    """All benchmarks of a run in the order they were made."""
    paths = sorted((run_dir / FOLDER).glob("step-*.json"), key=lambda path: path.stem)
    return [BenchmarkRecord(**_with_nan(json.loads(path.read_text()))) for path in paths]


def drop_after(run_dir: Path, step: int) -> None:
    """Remove what an earlier session scored after `step`: the run that goes on from there scores it anew."""
    for record in read_records(run_dir):
        if record.step > step:
            json_path(run_dir, record.step, record.tier).unlink()


def write_table(run_dir: Path, records: Sequence[BenchmarkRecord], tasks: Sequence[str]) -> None:
    """benchmark/benchmark.csv, a row a benchmark of any tier, whole or absent.

    The columns depend on `tasks`, those of all tiers, only: where a tier lacks a task its cells are empty.
    """
    columns = ["step", "tier", *BENCHMARK_SCORES, "seconds", "training_share"]
    columns += [f"{task} {name}" for task in tasks for name in ("wql", "mase")]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        of_tasks = {f"{task} {name}": score for task, its in record.tasks.items() for name, score in its.items()}
        writer.writerow(
            {
                "step": record.step,
                "tier": record.tier,
                **record.scores,
                "seconds": round(record.seconds, 3),
                "training_share": round(record.training_share, 4),
                **of_tasks,
            }
        )
    write_text(run_dir / FOLDER / TABLE, text.getvalue())


def _with_nan(record: dict[str, Any]) -> dict[str, Any]:
    """The scores that `strict_json` made null, as numbers again."""
    number = lambda scores: {name: math.nan if score is None else score for name, score in scores.items()}
    record["scores"] = number(record["scores"])
    record["tasks"] = {task: number(its) for task, its in record["tasks"].items()}
    record["previous"] = record["previous"] and number(record["previous"])
    record["best_score"] = math.inf if record["best_score"] is None else record["best_score"]
    return record
