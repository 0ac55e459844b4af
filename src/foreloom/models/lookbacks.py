"""How far back a forecast looks: the mean over several pasts of a series, each shorter than the last, is steadier than
what the longest alone gives.

N-BEATS wins by an ensemble over lookbacks, too (Oreshkin et al. 2020, section 3.4), with models trained for each; here
one model, which has learned from contexts of many lengths, is asked several times.

Axes: B targets, L context steps, K lookbacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.common.forecasting import UnivariateForecaster, in_float32, telling, told, usable_steps
from foreloom.models.common.rows import batches
from foreloom.models.common.season import seasons_of
from foreloom.models.common.standardize import standardizer_of
from foreloom.models.family import Forecaster, ModelFamily

SHORTER = 0.5**0.5
"""A lookback over the one before."""
LEAST_OBSERVED = 16
"""Steps that a shorter lookback must see."""
CYCLES = 2
"""Seasons that it must hold: one to copy, and one more to tell how well that goes."""


def forecaster_of(family: ModelFamily, module: nn.Module) -> Forecaster:
    """A forecaster around a module that looks back as often as its architecture says; ValueError for a family that
    does not forecast."""
    if family.forecaster is None:
        raise ValueError(f"a model of the family {family.name} does not forecast series.")
    num = getattr(getattr(module, "architecture", None), "lookbacks", 1)
    plain = family.forecaster(module)
    return plain if num == 1 else LookbacksForecaster(plain, num)


class LookbacksForecaster:
    """A forecaster whose answer is the mean over several lookbacks of each input. See `models.family.Forecaster`."""

    def __init__(self, base: Forecaster, num: int) -> None:
        self.base, self.num = base, num
        self.quantile_levels = base.quantile_levels
        self.context_length, self.prediction_length = base.context_length, base.prediction_length
        self.is_autoregressive, self.is_univariate = base.is_autoregressive, base.is_univariate
        # Attributes where the base has them: see `evaluation.ranks.StepBoundedForecaster`, `family.RoutedForecaster`.
        for name in ("max_steps", "route"):
            if hasattr(base, name):
                setattr(self, name, getattr(base, name))

    def predict_quantiles(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int,
        quantile_levels: Sequence[float],
        *,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        **options: Any,
    ) -> list[np.ndarray]:
        """As many forwards whatever the inputs hold: ranks that share a sharded module must stay in step. ValueError
        for cross_learning, whose batches are one company."""
        if cross_learning:
            raise ValueError(
                f"cross_learning: this model looks back {self.num} times, each series as far as it may, and series "
                "that see each other look equally far. Leave it out, or set lookbacks to 1."
            )
        num_steps = _usable_steps(self.base, inputs, context_length, prediction_length)
        num = most_lookbacks(self.num, num_steps)
        # Not how many are used: of lengths that were left to the base it may say more than that they are too long.
        ask: dict[str, Any] = {"batch_size": batch_size, "context_length": context_length, **options}
        alone = [_target(one, i) for one in inputs for i in range(one.num_targets)] if self.is_univariate else inputs
        order = sorted(range(len(alone)), key=lambda i: alone[i].context_RC.shape[1])
        answers: dict[int, np.ndarray] = {}
        parts = [order[rows] for rows in batches([len(alone[i].context_RC) for i in order], batch_size)]
        for chunk in told(parts, len(alone)):
            steps_KB = lookbacks([alone[i] for i in chunk], num, num_steps)
            found: list[list[np.ndarray]] = [[] for _ in chunk]
            for steps_B in steps_KB:
                # Of one where there are none, to be dropped.
                chosen = np.flatnonzero(steps_B) if steps_B.any() else [0]
                shown = [_newest(alone[chunk[b]], max(steps_B[b], 1)) for b in chosen]
                with telling(lambda done, total: None):
                    forecasts = self.base.predict_quantiles(shown, prediction_length, quantile_levels, **ask)
                if steps_B.any():
                    for b, forecast in zip(chosen, forecasts, strict=True):
                        found[b].append(forecast)
            answers |= {i: _mean(each) for i, each in zip(chunk, found, strict=True)}
        if not self.is_univariate:
            return [answers[i] for i in range(len(inputs))]
        in_order = iter(answers[i] for i in range(len(alone)))
        return [np.concatenate(list(islice(in_order, one.num_targets))) for one in inputs]

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        """Of the whole context."""
        return self.base.embed(inputs, batch_size=batch_size)

    def on_scaled_data(self) -> Forecaster:
        """Itself, where the base standardises its input; else the base's, which looks back as often."""
        scaled = self.base.on_scaled_data()
        return self if scaled is self.base else LookbacksForecaster(scaled, self.num)


def most_lookbacks(num: int, num_steps: int) -> int:
    """Of `num` lookbacks, those that can show enough where the first shows `num_steps` steps; one at least."""
    most = 1
    while most < num and round(SHORTER**most * num_steps) >= LEAST_OBSERVED:
        most += 1
    return most


def lookbacks(inputs: Sequence[ForecastInput], num: int, most: int) -> np.ndarray:
    """int64 (K, B): how many of its newest steps each lookback of an input shows; 0 for one that would show too few.

    The first shows everything from the first step on that a target observes, `most` steps at most, and the next each
    `SHORTER` of the one before, where every target has two of its seasons in it and enough observed steps.
    """
    targets = [row_L for one in inputs for row_L in in_float32(one.targets_alone(), most)[0].context_RC]
    of_input = np.repeat(np.arange(len(inputs)), [one.num_targets for one in inputs])
    whole_B = np.ones(len(inputs), np.int64)
    np.maximum.at(whole_B, of_input, [_num_steps(row_L) for row_L in targets])
    steps_KB = np.round(SHORTER ** np.arange(num)[:, None] * whole_B).astype(np.int64)
    # To a length that follows from an input alone, so that its company has no part in how its season is rounded.
    length_B = 2 ** np.ceil(np.log2(whole_B)).astype(np.int64)
    for length in np.unique(length_B):
        rows = np.flatnonzero(length_B[of_input] == length)
        context_RL = np.full((len(rows), length), np.nan, np.float32)
        for filled_L, row in zip(context_RL, rows, strict=True):
            newest_L = targets[row][-length:]
            filled_L[length - len(newest_L) :] = newest_L
        steps_KR = steps_KB[:, of_input[rows]]
        seen_RL = np.cumsum(~np.isnan(context_RL[:, ::-1]), axis=1)  # of the newest step, of the newest two, ...
        seen_KR = np.take_along_axis(seen_RL, np.maximum(steps_KR - 1, 0).T, axis=1).T
        too_few = (seen_KR < LEAST_OBSERVED) | (steps_KR < CYCLES * _season(context_RL))
        for steps_B, too_few_R in zip(steps_KB[1:], too_few[1:], strict=True):
            steps_B[of_input[rows[too_few_R]]] = 0
    return steps_KB


def _usable_steps(
    base: Forecaster, inputs: Sequence[ForecastInput], context_length: int | None, prediction_length: int
) -> int:
    """The newest steps that the base itself would use, which may depend on the horizon; ValueError and warning are
    its own."""
    if isinstance(base, UnivariateForecaster):
        return base.num_context_steps(inputs, context_length, prediction_length)
    return usable_steps(inputs, context_length, base.context_length)


def _mean(forecasts: Sequence[np.ndarray]) -> np.ndarray:
    """In their precision, but summed in double: float32 holds each, and not always the sum."""
    return np.mean(forecasts, axis=0, dtype=np.float64).astype(np.result_type(*forecasts))


def _target(one: ForecastInput, i: int) -> ForecastInput:
    return ForecastInput(one.context_RC[i : i + 1], one.future_RH[i : i + 1], num_targets=1)


def _newest(one: ForecastInput, num_steps: int) -> ForecastInput:
    return replace(one, context_RC=one.context_RC[:, -num_steps:])


def _num_steps(x_L: np.ndarray) -> int:
    """From the first observed step on; one where nothing is observed."""
    observed_L = ~np.isnan(x_L)
    return int(len(x_L) - observed_L.argmax()) if observed_L.any() else 1


def _season(context_RL: np.ndarray) -> np.ndarray:
    """int64 (R,): that of the two seasons by which each row repeats itself better; 0 where there is none."""
    context = torch.from_numpy(context_RL)
    observed = ~context.isnan()
    seasons = seasons_of(standardizer_of(context, arcsinh=False).apply_where(observed, context), observed)
    is_longer_R = seasons.longer_correlation_B > seasons.correlation_B
    return torch.where(is_longer_R, seasons.longer_B, seasons.lag_B).numpy()
