"""Stable ARMA series with seasonal parts, integrated or not.

Axes: B series, K lags, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from foreloom.config.section import section
from foreloom.data.synthetic.process import (
    COMMON_PERIODS,
    Draws,
    Periods,
    Share,
    StochasticProcess,
    refuse_idle_periods,
)
from foreloom.data.synthetic.shapes import shifted_and_scaled


@section
class ArmaConfig:
    """Autoregressions and moving averages."""

    most_lags: Annotated[int, Field(ge=1, le=12)] = 4
    """The highest order of the autoregression and of the moving average."""
    periods: Periods = COMMON_PERIODS
    """Lengths of the season of seasonal series, in steps."""
    seasonal: Share = 0.5
    """Share of series that depend on the value a period ago; in half of them that dependence never fades."""
    integrated: Share = 0.4
    """Share of series that are the running sum of such a series, half of them with a drift."""

    def __post_init__(self) -> None:
        refuse_idle_periods(self.periods, COMMON_PERIODS, self.seasonal)


def generate(draws: Draws, num_steps: int, settings: ArmaConfig) -> np.ndarray:
    """float64 (B, T): seasonal ARIMA of random coefficients (Box and Jenkins 1970), stationary before sums."""
    extra = settings.most_lags
    shock_BT = draws.normal("shock", num_steps + extra)
    seasonal_B = _seasonal(draws, settings)
    period_B = draws.pick("season/period", settings.periods)
    rows = np.flatnonzero(seasonal_B)
    keep_B = draws.rows(rows).uniform("season/keep", low=0.3, high=0.95)
    shock_BT[rows] = _seasonal_autoregression(shock_BT[rows], keep_B, period_B[rows])
    series_BT = _moving_average(draws, _autoregression(draws, shock_BT, settings), settings)
    unfading_B = seasonal_B & draws.happens("season/unfading", probability=0.5)
    rows = np.flatnonzero(unfading_B)
    ratio_B = draws.rows(rows).log_uniform("season/change", low=0.02, high=0.3)
    series_BT[rows] = _seasonal_sums(series_BT[rows], ratio_B, period_B[rows])
    # What is summed is made gentle: a step is small beside where the sum has come to.
    integrated_B1 = _integrated(draws, settings)[:, None]
    drift_B1 = 0.2 * draws.normal("drift", 1) * draws.happens("drifts", 1, probability=0.5)
    sums_BT = 0.2 * np.cumsum(series_BT + drift_B1, axis=1)
    return shifted_and_scaled(draws, np.where(integrated_B1, sums_BT, series_BT))


def kinds(draws: Draws, settings: ArmaConfig) -> Sequence[str]:
    name_B = np.where(_integrated(draws, settings), "arima", "arma").astype(object)
    return np.where(_seasonal(draws, settings), "seasonal_" + name_B, name_B).tolist()


def coefficients(partial_BK: np.ndarray) -> np.ndarray:
    """float64 (K, B, K): the coefficients of orders 1 .. K that partial autocorrelations in (-1, 1) give, row m - 1 of
    order m, zeros behind it. Any such numbers give a stationary autoregression (Barndorff-Nielsen and Schou 1973), by
    the recursion of Durbin and Levinson."""
    most_lags = partial_BK.shape[1]
    phi_KBK = np.zeros((most_lags, *partial_BK.shape))
    for lag in range(most_lags):
        phi_KBK[lag, :, lag] = partial_BK[:, lag]
        if lag:
            before_BK = phi_KBK[lag - 1, :, :lag]
            phi_KBK[lag, :, :lag] = before_BK - partial_BK[:, lag, None] * before_BK[:, ::-1]
    return phi_KBK


def _seasonal(draws: Draws, settings: ArmaConfig) -> np.ndarray:
    return draws.happens("seasonal", probability=settings.seasonal)


def _integrated(draws: Draws, settings: ArmaConfig) -> np.ndarray:
    return draws.happens("integrated", probability=settings.integrated)


def _partial(draws: Draws, use: str, most_lags: int, low: float, high: float) -> np.ndarray:
    """(B, K): zero beyond an order of the series' own in 0 .. K; the first in [low, high), the others smaller."""
    partial_BK = draws.uniform(f"{use}/partial", most_lags, low=-0.6, high=0.6)
    partial_BK[:, 0] = low + (high - low) * (partial_BK[:, 0] + 0.6) / 1.2
    order_B1 = draws.integers(f"{use}/order", 1, high=most_lags + 1)
    return np.where(np.arange(most_lags) < order_B1, partial_BK, 0.0)


def _autoregression(draws: Draws, shock_BT: np.ndarray, settings: ArmaConfig) -> np.ndarray:
    """Series of variance 1 in their stationary law from the first step: step t is predicted by order min(t, K) from
    all there is and a shock of that order's variance. A shock that remembers a period ago makes the start inexact by
    as much as the autoregression still knows after a period."""
    partial_BK = _partial(draws, "autoregression", settings.most_lags, low=-0.2, high=0.99)
    phi_KKB = np.array(coefficients(partial_BK).transpose(0, 2, 1), order="C")
    most_lags = settings.most_lags
    spread_KB = np.sqrt(np.cumprod(1 - partial_BK.T**2, axis=0))
    y_TB = np.array(shock_BT.T, order="C")
    for step in range(1, len(y_TB)):
        order = min(step, most_lags)
        y_TB[step] *= spread_KB[order - 1]
        for lag in range(order):
            y_TB[step] += phi_KKB[order - 1, lag] * y_TB[step - 1 - lag]
    return y_TB.T


def _moving_average(draws: Draws, y_BT: np.ndarray, settings: ArmaConfig) -> np.ndarray:
    """The sum of the last K + 1 values with invertible weights, of variance near 1; K steps shorter."""
    most_lags = settings.most_lags
    theta_BK = -coefficients(_partial(draws, "moving_average", most_lags, low=-0.9, high=0.6))[-1]
    num_steps = y_BT.shape[1] - most_lags
    total_BT = y_BT[:, most_lags:].copy()
    for lag in range(1, most_lags + 1):
        total_BT += theta_BK[:, lag - 1, None] * y_BT[:, most_lags - lag : most_lags - lag + num_steps]
    return total_BT / np.sqrt(1 + (theta_BK**2).sum(axis=1, keepdims=True))


def _seasonal_autoregression(shock_BT: np.ndarray, keep_B: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """Shocks of variance 1 that remember those of a period ago: as many stationary AR(1) as the period has steps."""
    return _period_recursion(shock_BT, keep_B, np.sqrt(1 - keep_B**2), period_B)


def _seasonal_sums(y_BT: np.ndarray, ratio_B: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """A season that changes slowly: its first period is the series itself, and each later value that of a period ago
    and a small share of the series."""
    return _period_recursion(y_BT, np.ones_like(ratio_B), ratio_B, period_B)


def _period_recursion(x_BT: np.ndarray, keep_B: np.ndarray, weight_B: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """y[t] = keep * y[t - period] + weight * x[t], and y = x in the first period."""
    y_TB = np.array(x_BT.T, order="C")
    row_B = np.arange(len(period_B))
    for step in range(min(period_B, default=len(y_TB)), len(y_TB)):
        past_B = y_TB[np.maximum(step - period_B, 0), row_B]
        y_TB[step] = np.where(step >= period_B, keep_B * past_B + weight_B * y_TB[step], y_TB[step])
    return y_TB.T


PROCESS = StochasticProcess(
    name="arma",
    sentence="Stable autoregressions and moving averages, seasonal ones and their running sums.",
    settings=ArmaConfig,
    generate=generate,
    kinds=kinds,
)
