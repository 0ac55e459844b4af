"""A model beside peers on the same windows of some series of each task: statsforecast's AutoETS and AutoTheta, fracast.

    pip install 'foreloom[statistical]' fracast    # statsforecast needs pandas < 3
    OMP_NUM_THREADS=1 python benchmarks/peers.py small auto-ets auto-theta fracast --series 12
    OMP_NUM_THREADS=1 python benchmarks/peers.py small auto-theta --series 5 --only sunspot nn5

A model is what `foreloom evaluate` takes, or fracast. Scores are geometric means over tasks, over Seasonal Naive's. The
series of a task are chosen by a hash, the same for every model and in every run; of those with several variates all are
scored. Each model sees the newest steps as far as it uses them: the statistical ones 1,024, fracast 2,048. A task on
which a model fails, or has no score, counts for none, and that is said. CPU seconds: of the whole process while a model
is scored, reading the windows among them (Seasonal Naive's are hardly more).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.data.formats.reader import ChosenRows, CombinedSource
from foreloom.data.stream.selection import fixed_choice
from foreloom.evaluation.adapters.adapter import Adapter, past_of
from foreloom.evaluation.baselines import NO_LIMIT
from foreloom.evaluation.by_name import forecasters_by_name
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.plan import plan_windows
from foreloom.evaluation.skill import BASELINE, geometric_mean
from foreloom.evaluation.tasks import EvaluationTask, OpenedTask, read_tasks
from foreloom.models.family import Forecaster

FRACAST, METRICS = "fracast", ("WQL", "MASE")


class Fracast(Adapter):
    """The package's bundled weights in fp32 (its default is int8), asked one series at a time: the newest 2,048 steps,
    blocks of 48 unrolled, nine deciles. It refuses a series of fewer than 8 observed steps."""

    is_univariate = is_autoregressive = True

    def __init__(self) -> None:
        try:
            from fracast import FracastModel
        except ModuleNotFoundError:
            raise ValueError("fracast is not installed: pip install fracast.") from None
        self._model = FracastModel.from_pretrained(weights="fp32")
        self.context_length = self._model.context_length
        self.prediction_length = self._model.horizon
        self.quantile_levels = tuple(self._model.quantiles)

    def forecast(
        self, inputs: Sequence[ForecastInput], prediction_length: int, quantile_levels: Sequence[float]
    ) -> Sequence[np.ndarray]:
        if unknown := set(quantile_levels) - set(self.quantile_levels):
            raise ValueError(f"fracast forecasts the nine deciles, not {sorted(unknown)}. Leave these levels out.")
        levels = [self.quantile_levels.index(level) for level in quantile_levels]
        return [self._model.forecast(past_of(one), horizon=prediction_length)[..., levels] for one in inputs]


class Found(NamedTuple):
    """A model on a task; `trouble` says why it cannot be counted."""

    scores: Mapping[str, float]
    cpu_seconds: float
    trouble: str


def some_series(task: EvaluationTask, most: int) -> OpenedTask:
    """The task on at most `most` of the series that have a window in it."""
    sources = task.open()
    plan = plan_windows(task, sources, NO_LIMIT, task.batch_size)
    series = sorted(set(zip(plan.source_N.tolist(), plan.item_N.tolist(), strict=True)))
    chosen = np.array(series)[fixed_choice(np.arange(len(series)), most)]
    labels = [str(path) for path in task.paths]
    parts = {
        labels[s]: ChosenRows(source, rows, name=source.name, fingerprint=source.fingerprint, files={})
        for s, source in enumerate(sources)
        if len(rows := chosen[chosen[:, 0] == s, 1])
    }
    settings = {field.name: getattr(task, field.name) for field in dataclasses.fields(EvaluationTask)}
    settings |= {"freq": None, "leave_out": ()}  # chosen by these already
    return OpenedTask(**settings, data=CombinedSource(list(parts.values()), list(parts), name=task.name))


def ask(forecaster: Forecaster, task: EvaluationTask) -> Found:
    """Whatever a peer raises is the task's trouble and not the end of the run."""
    times = [time.process_time()]  # the last is of the last batch: forecasts for pictures come after it
    try:
        (result,) = evaluate(forecaster, [task], keep=lambda *_: times.append(time.process_time())).tasks
    except Exception as error:
        return Found({}, times[-1] - times[0], f"{type(error).__name__}: {error}")
    troubles = [f"no {metric} above 0" for metric in METRICS if not 0 < result.scores[metric] < math.inf]
    if result.num_fallbacks:
        troubles.append(f"failed on {result.num_fallbacks} of {int(result.sums.num_windows)} windows")
    return Found(result.scores, times[-1] - times[0], ", ".join(troubles))


def report(found: Mapping[str, Mapping[str, Found]], names: Sequence[str]) -> None:
    """The table, and below it what is left out of it."""
    counted = [one for one in found.values() if not any(its.trouble for its in one.values())]
    print(f"| {len(counted)} tasks | WQL | MASE | tasks won (WQL, MASE) | CPU seconds |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in names:
        ratios = [[one[name].scores[metric] / one[BASELINE].scores[metric] for one in counted] for metric in METRICS]
        means = " | ".join(f"{geometric_mean(of_metric):.3f}" for of_metric in ratios)
        won = " and ".join(str(sum(ratio < 1 for ratio in of_metric)) for of_metric in ratios)
        print(f"| {name} | {means} | {won} | {sum(one[name].cpu_seconds for one in counted):.1f} |")
    for task, one in found.items():
        if trouble := "; ".join(f"{name}: {its.trouble}" for name, its in one.items() if its.trouble):
            print(f"\nLeft out for all: {task} ({trouble}).")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tasks", type=Path, default=Path(__file__).with_name("zero_shot_report.yaml"))
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--series", type=int, default=12, help="of a task at most")
    parser.add_argument("--only", nargs="*", help="names of tasks")
    given = parser.parse_args()
    if given.series < 1:
        parser.error("--series must be 1 or more.")
    tasks = {task.name: task for task in read_tasks(given.tasks, given.data_root)}
    if unknown := set(given.only or ()) - tasks.keys():
        parser.error(f"--only: {given.tasks} has no task {', '.join(sorted(unknown))}.")
    forecasters = forecasters_by_name([name for name in given.models if name != FRACAST], torch.device("cpu"))
    forecasters |= {FRACAST: Fracast()} if FRACAST in given.models else {}
    names = [BASELINE, *(name for name in forecasters if name != BASELINE)]  # first: its scores divide the others'
    found: dict[str, dict[str, Found]] = {}
    for task in given.only or tasks:
        few = some_series(tasks[task], given.series)
        found[task] = {name: ask(forecasters[name], few) for name in names}
        for name, one in found[task].items():
            scores = one.trouble or ", ".join(f"{metric} {one.scores[metric]:.4g}" for metric in METRICS)
            print(f"{task}, {len(few.data)} series, {name}: {scores}; {one.cpu_seconds:.1f} s", file=sys.stderr)
    report(found, names)


if __name__ == "__main__":
    main()
