"""MSE and MAE of a forecaster on sliding windows, the same bits on any number of ranks.

Axes: N windows, H horizon steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.baselines import SeasonalForecaster
from foreloom.evaluation.fallbacks import num_fallbacks
from foreloom.evaluation.metrics import BrokenForecastError
from foreloom.evaluation.result import ForecastExample, pick_examples
from foreloom.evaluation.sliding import Piece, SlidingWindows
from foreloom.evaluation.turns import Reduce, alone, turns
from foreloom.models.family import Forecaster

STEPS_OF_A_BATCH = 256 * 512
"""Context steps of one forward where no batch size is given: 256 windows of 512 steps, 42 of 3,072."""


@dataclass(frozen=True)
class SlidingResult:
    """Errors by window, float64. Steps with a missing label are left out."""

    squared_error_N: np.ndarray
    absolute_error_N: np.ndarray
    num_points_N: np.ndarray
    seconds: float
    num_fallbacks: int = 0
    """Windows that a simpler model forecast because the one asked for failed."""
    examples: tuple[ForecastExample, ...] = ()

    @property
    def num_windows(self) -> int:
        return len(self.num_points_N)

    @cached_property
    def mse(self) -> float:
        """Over all windows, channels and steps at once, as `mae`; NaN where no label was observed."""
        return self._mean(self.squared_error_N)

    @cached_property
    def mae(self) -> float:
        return self._mean(self.absolute_error_N)

    def _mean(self, error_N: np.ndarray) -> float:
        num_points = self.num_points_N.sum()
        return float(error_N.sum() / num_points) if num_points else float("nan")


def score_windows(
    forecaster: Forecaster,
    windows: SlidingWindows,
    *,
    batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    reduce: Reduce | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SlidingResult:
    """Score the median forecast on all windows; every rank gets the whole result.

    `batch_size` counts windows of one forward (default: as `STEPS_OF_A_BATCH` allows). With `world_size` > 1, every
    rank calls this with the same arguments but `rank`, and `reduce` sums a vector over them. `progress(batches done,
    batches in all)`. Raises ValueError, on all ranks, for a forecast that is not finite.
    """
    assert world_size == 1 or reduce is not None
    start_seconds = time.perf_counter()
    batch_size = batch_size or max(STEPS_OF_A_BATCH // windows.context_length, 1)
    num_batches = -(-windows.num_windows // batch_size)
    squared_N, absolute_N, num_N = np.zeros((3, windows.num_windows))
    broken: BrokenForecastError | None = None
    fallbacks = 0
    for turn, (batch, counts) in enumerate(turns(num_batches, rank, world_size), start=1):
        first, last = batch * batch_size, min((batch + 1) * batch_size, windows.num_windows)
        pieces = list(windows.pieces(first, last))
        before = num_fallbacks(forecaster)
        forecast_NH = _forecast(forecaster, windows, pieces)
        fallbacks += counts * (num_fallbacks(forecaster) - before)
        if counts and not broken:
            try:
                _refuse_broken(forecast_NH, pieces, windows.context_length)
                label_NH = np.concatenate([windows.labels_NH(piece) for piece in pieces])
                observed_NH = np.isfinite(label_NH)
                error_NH = np.abs(np.where(observed_NH, label_NH, np.nan) - forecast_NH)
                squared_N[first:last] = np.nansum(np.square(error_NH), axis=-1)
                absolute_N[first:last] = np.nansum(error_NH, axis=-1)
                num_N[first:last] = observed_NH.sum(axis=-1)
            except BrokenForecastError as error:
                broken = error  # raised below, on all ranks together: none may wait for one that gave up
        if progress:
            progress(min(turn * world_size, num_batches), num_batches)
    # Windows, not sums, go over the ranks: zeros add nothing, so the sums below do not depend on who did what.
    total = (reduce or alone)(np.concatenate([[broken is not None, fallbacks], squared_N, absolute_N, num_N]))
    if total[0]:
        raise broken or BrokenForecastError("another rank met a forecast that is not finite.")
    squared_N, absolute_N, num_N = total[2:].reshape(3, -1)
    examples = _examples(forecaster, windows, squared_N, num_N)
    seconds = time.perf_counter() - start_seconds
    return SlidingResult(squared_N, absolute_N, num_N, seconds, int(total[1]), examples)


def _forecast(forecaster: Forecaster, windows: SlidingWindows, pieces: Sequence[Piece]) -> np.ndarray:
    """The median (N, H) of all windows in one forward, or one a piece for forecasters that must know the season."""

    def ask(one: Forecaster, inputs: list[ForecastInput]) -> list[np.ndarray]:
        return one.predict_quantiles(
            inputs,
            windows.prediction_length,
            [0.5],
            batch_size=len(inputs),
            context_length=windows.context_length,  # so that a model which cannot use it all says so
        )

    if isinstance(forecaster, SeasonalForecaster):
        apart = [ask(forecaster.at_season(p.channel.season_length), windows.inputs(p)) for p in pieces]
        forecasts = [forecast for answers in apart for forecast in answers]
    else:
        forecasts = ask(forecaster, [one for piece in pieces for one in windows.inputs(piece)])
    return np.concatenate(forecasts)[..., 0].astype(np.float64)


def _refuse_broken(forecast_NH: np.ndarray, pieces: Sequence[Piece], context_length: int) -> None:
    broken_N = ~np.isfinite(forecast_NH).all(axis=-1)
    if not broken_N.any():
        return
    n = int(broken_N.argmax())
    channel, start = [(p.channel, p.first + i) for p in pieces for i in range(p.num_windows)][n]
    context_L = channel.values_T[start : start + context_length]
    seen = "" if np.isfinite(context_L).any() else " Every value of its context is missing."
    raise BrokenForecastError(
        f"The forecast of {channel.name!r} for window {start:,} (context from its step {start:,} on) is not finite, so "
        f"it cannot be scored.{seen} Look at the model's weights and at that part of the data."
    )


def _examples(
    forecaster: Forecaster, windows: SlidingWindows, squared_N: np.ndarray, num_N: np.ndarray
) -> tuple[ForecastExample, ...]:
    """The best, the median and the worst window by MSE, forecast once more on every rank."""
    mse_N = np.divide(squared_N, num_N, out=np.full(len(num_N), np.nan), where=num_N > 0)
    examples = []
    for kind, n in pick_examples(mse_N).items():
        (piece,) = windows.pieces(n, n + 1)
        examples.append(
            ForecastExample(
                kind=kind,
                name=piece.channel.name,
                cut=piece.first + windows.context_length,
                error=float(mse_N[n]),
                context_VL=windows.inputs(piece)[0].context_RC.copy(),
                label_VH=windows.labels_NH(piece).copy(),
                forecast_VHQ=_forecast(forecaster, windows, [piece])[..., None],
                quantile_levels=(0.5,),
            )
        )
    return tuple(examples)
