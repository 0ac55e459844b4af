"""How models compare over many tasks: relative scores, skill, win rates, ranks, and how sure one can be of them.

Pure functions on tables of errors, lower is better. Definitions are those of the boards: Chronos (relative scores,
Ansari et al. 2024, arXiv:2403.07815), fev-bench (skill, win rate, bootstrap, leakage; Shchur et al. 2025,
arXiv:2509.26468), GIFT-Eval (geometric means and mean rank, Aksu et al. 2024, arXiv:2410.10393).

Axes: T tasks, M models, B bootstrap samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

BASELINE = "seasonal-naive"
"""What tables call the forecaster that the others are divided by."""
RATIO_LIMITS = (0.01, 100.0)
"""fev clips relative errors to these, so that one task cannot decide a mean."""
NUM_RESAMPLES = 1000
SEED = 123
"""fev's: the published intervals come back exactly."""
CONFIDENCE = 0.95
MOST_DRAWN = 2**23
"""Errors that resamples hold at once, 64 MiB: rows of many series in a thousand of them would be gigabytes."""
FEWEST_TASKS = 5
"""That an interval over tasks is made of."""


@dataclass(frozen=True)
class ErrorTable:
    """The errors of models on tasks, one metric. NaN: the model has no score for the task."""

    tasks: tuple[str, ...]
    models: tuple[str, ...]
    error_TM: np.ndarray
    """float64."""

    @classmethod
    def of(cls, scores: Mapping[str, Mapping[str, float]], tasks: Sequence[str]) -> ErrorTable:
        """From model -> task -> score; tasks that a model lacks are NaN."""
        rows = [[own.get(task, np.nan) for own in scores.values()] for task in tasks]
        return cls(tuple(tasks), tuple(scores), np.array(rows, dtype=np.float64).reshape(len(tasks), len(scores)))

    def on(self, kept_T: np.ndarray) -> ErrorTable:
        """The tasks where the mask is true."""
        tasks = tuple(task for task, is_kept in zip(self.tasks, kept_T, strict=True) if is_kept)
        return ErrorTable(tasks, self.models, self.error_TM[kept_T])

    def column(self, model: str) -> np.ndarray:
        """The errors of one model, (T,)."""
        return self.error_TM[:, self.models.index(model)]


@dataclass(frozen=True)
class Interval:
    """A statistic of each model with the ends of its confidence interval, (M,) each."""

    estimate: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def relative(table: ErrorTable, baseline: str) -> ErrorTable:
    """Errors over the baseline's. A baseline of 0 leaves nothing to compare: NaN."""
    base_T1 = table.column(baseline)[:, None]
    ratio_TM = np.divide(
        table.error_TM, base_T1, out=np.full_like(table.error_TM, np.nan), where=np.nan_to_num(base_T1) > 0
    )
    return replace(table, error_TM=ratio_TM)


def geometric_mean(ratios: Sequence[float]) -> float:
    """exp(mean(log r)): 0 if one ratio is 0, NaN if one is NaN or there is none."""
    if not ratios or any(math.isnan(r) for r in ratios):
        return math.nan
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if min(ratios) > 0 else 0.0


def geometric_means(ratio_TM: np.ndarray) -> np.ndarray:
    """exp(mean(log r)) over tasks, (M, ...): 0 where one is 0, NaN where one is NaN."""
    with np.errstate(divide="ignore"):
        return np.exp(np.log(ratio_TM).mean(axis=0))


def fev_ratios(
    table: ErrorTable, baseline: str, *, leaked_TM: np.ndarray | None = None, donor: str | None = None
) -> ErrorTable:
    """Relative errors as fev's board takes them: leaked ones replaced, clipped, failed ones as good as the baseline.

    Where `leaked_TM` is true the model was trained on the task's data: it gets the error of the zero-shot model `donor`
    there (fev-bench: Chronos-Bolt). Raises ValueError where the donor was trained on a task itself.
    """
    ratios = relative(table, baseline)
    ratio_TM = ratios.error_TM
    if leaked_TM is not None and donor is not None:
        donor_leaked_T = leaked_TM[:, table.models.index(donor)]
        if donor_leaked_T.any():
            task = table.tasks[int(donor_leaked_T.argmax())]
            raise ValueError(
                f"{donor} was trained on the data of {task!r}, so it cannot stand in for other models there."
            )
        ratio_TM = np.where(leaked_TM, ratios.column(donor)[:, None], ratio_TM)
    return replace(ratios, error_TM=np.nan_to_num(np.clip(ratio_TM, *RATIO_LIMITS), nan=1.0))


def skills(ratio_TM: np.ndarray) -> np.ndarray:
    """1 - geometric mean of the relative errors, (M, ...): the share of the baseline's error that is gone."""
    return 1 - geometric_means(ratio_TM)


def win_rates(error_TM: np.ndarray) -> np.ndarray:
    """Share of (task, other model) pairs in which a model has the smaller error, ties half, (M, ...)."""
    num_models = error_TM.shape[1]
    pair_MM = pairwise_win_rates(error_TM)
    # Against itself a model ties on every task, which is half a win each.
    return (pair_MM.sum(axis=1) - 0.5) / (num_models - 1)


def pairwise_win_rates(error_TM: np.ndarray) -> np.ndarray:
    """Share of tasks on which model i has a smaller error than model j, ties half, (M, M, ...) as [i, j]."""
    ours, theirs = error_TM[:, :, None], error_TM[:, None, :]
    return (ours < theirs).mean(axis=0) + 0.5 * (ours == theirs).mean(axis=0)


def mean_ranks(error_TM: np.ndarray) -> np.ndarray:
    """Mean over tasks of a model's rank, 1 is best, ties share their mean rank, (M,). NaN ranks last."""
    error_TM = np.nan_to_num(error_TM, nan=np.inf)
    ours, theirs = error_TM[:, :, None], error_TM[:, None, :]
    better_TM = (theirs < ours).sum(axis=2)
    equal_TM = (theirs == ours).sum(axis=2)
    return (better_TM + (equal_TM + 1) / 2).mean(axis=0)


def bootstrap(
    error_TM: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Interval:
    """A statistic with the percentile interval of its values on tasks drawn anew, as many, with repetition.

    `statistic` maps (T, M, B) to (M, B) or (M, M, B), and (T, M) to the same without B. The draws are of positions: the
    same tasks in another order give another interval. Fewer than `FEWEST_TASKS` tell nothing of others: ends of NaN.
    """
    num_tasks = len(error_TM)
    if num_tasks < FEWEST_TASKS:
        value = statistic(error_TM)
        return Interval(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    rng, most = np.random.default_rng(seed), max(MOST_DRAWN // error_TM.size, 1)
    values = []
    for first in range(0, num_resamples, most):  # one stream, so that the draws are those of a single call
        draws_BT = rng.integers(0, num_tasks, size=(min(most, num_resamples - first), num_tasks))
        values.append(statistic(error_TM[draws_BT].transpose(1, 2, 0)))
    values_MB = np.concatenate(values, axis=-1)
    outside = (1 - confidence) / 2
    lower, upper = np.quantile(values_MB, [outside, 1 - outside], axis=-1)
    return Interval(statistic(error_TM), lower, upper)
