"""The benchmark of a run: scores the model as it trains, remembers the best, and keeps a file of each evaluation."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from foreloom.data.formats.reader import open_source
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import from_rank_zero, sum_over_ranks
from foreloom.evaluation.benchmark import evaluate
from foreloom.evaluation.benchmark_files import drop_after, read_records, write_record, write_table
from foreloom.evaluation.metrics import BrokenForecastError
from foreloom.evaluation.result import EvaluationResult
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.evaluation.tiers import BenchmarkConfig
from foreloom.evaluation.windows import plan_windows
from foreloom.models.family import Forecaster
from foreloom.monitoring.record import BenchmarkRecord, Tier

logger = logging.getLogger(__name__)


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
        context_length = self._forecaster(model).context_length
        for task in (task for tasks in self._tasks.values() for task in tasks):
            plan_windows(task, [open_source(path) for path in task.paths], context_length, self.config.batch_size)

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
            result = evaluate(
                self._forecaster(model),
                self._tasks[tier],
                batch_size=self.config.batch_size,
                rank=self._process.rank,
                world_size=self._process.world_size,
                reduce=lambda vector: sum_over_ranks(torch.from_numpy(vector), self._process).numpy(),
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
