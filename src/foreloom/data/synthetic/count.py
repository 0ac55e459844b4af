"""Visits, calls and sales counted by the hour or the day: profiles of day and week, closed hours, holidays.

Axes: B series, P steps of the longest day, D days, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from foreloom.config.section import section
from foreloom.data.synthetic.process import Draws, Several, Share, StochasticProcess
from foreloom.data.synthetic.shapes import decayed_sums, negative_binomial, profile, repeat, weekdays

_LARGEST_FACTOR = 12.0
"""How far the busiest step lies above a middle one at most."""


@section
class CountConfig:
    """Counts with daily and weekly profiles."""

    steps_per_day: Several[Annotated[int, Field(ge=1, le=1440)]] = (1, 24, 48, 96)
    """Steps of a day; each series has one of these numbers. 1 counts by the day."""
    most_visits: Annotated[float, Field(gt=0.5)] = 3000.0
    """The largest mean count of a middle step; series have from 0.5, log-uniform."""
    closed: Share = 0.35
    """Share of series with exact zeros outside opening hours, or on one or two days of the week."""
    holidays: Share = 0.5
    """Share of series with days that are far below the others, or above them."""


def generate(draws: Draws, num_steps: int, settings: CountConfig) -> np.ndarray:
    """float64 (B, T) of whole numbers: negative binomial about a rate of day, week, holidays and a slow walk."""
    length_B = draws.pick("day/length", settings.steps_per_day)
    start_B = (draws.uniform("day/start") * length_B).astype(np.int64)
    day_BT = (np.arange(num_steps) + start_B[:, None]) // length_B[:, None]
    weekday_B1 = draws.integers("day/of_week", 1, high=7)
    day_BT += weekday_B1
    log_rate_BT = _profiles(draws, length_B, start_B, day_BT, settings)
    days_BT = (np.arange(num_steps) + start_B[:, None]) / length_B[:, None] + weekday_B1
    log_rate_BT += draws.uniform("week/strength", 1, low=0.05, high=0.6) * weekdays(draws, "week", days_BT)
    log_rate_BT += _slow_walk(draws, length_B, num_steps)
    log_rate_BT += _holidays(draws, day_BT, settings)
    visits_B1 = draws.log_uniform("visits", 1, low=0.5, high=settings.most_visits)
    rate_BT = visits_B1 * np.exp(np.minimum(log_rate_BT, np.log(_LARGEST_FACTOR)))
    rate_BT *= _open(draws, length_B, start_B, day_BT, settings)
    return negative_binomial(draws, "visits", rate_BT, draws.log_uniform("shape", low=1.0, high=1000.0))


def kinds(draws: Draws, settings: CountConfig) -> Sequence[str]:
    return np.where(_closes(draws, settings), "closed", "open").tolist()


def _closes(draws: Draws, settings: CountConfig) -> np.ndarray:
    return draws.happens("closed", probability=settings.closed)


def _profiles(
    draws: Draws, length_B: np.ndarray, start_B: np.ndarray, day_BT: np.ndarray, settings: CountConfig
) -> np.ndarray:
    """(B, T), logarithms: one profile of the day on working days, its mixture with another at the weekend."""
    longest, num_steps = max(settings.steps_per_day), day_BT.shape[1]
    work_BP = profile(draws, "work", length_B, longest)
    mixed_B1 = draws.uniform("rest/mixed", 1, high=0.8)
    rest_BP = (1 - mixed_B1) * work_BP + mixed_B1 * profile(draws, "rest", length_B, longest)
    work_BT, rest_BT = (repeat(shape_BP, length_B, start_B, num_steps) for shape_BP in (work_BP, rest_BP))
    day_B1 = draws.uniform("day/strength", 1, low=0.2, high=1.2)
    return day_B1 * np.where(day_BT % 7 >= 5, rest_BT, work_BT)


def _slow_walk(draws: Draws, length_B: np.ndarray, num_steps: int) -> np.ndarray:
    """(B, T), logarithms: popularity that comes and goes over weeks, and growth that is bounded."""
    keep_B = 1 - 1 / (length_B * draws.log_uniform("walk/days", low=10.0, high=100.0))
    spread_B1 = draws.log_uniform("walk/spread", 1, low=0.02, high=0.4)
    walk_BT = decayed_sums(draws.uniform("walk/shock", num_steps, low=-1.7, high=1.7), keep_B)
    walk_BT *= spread_B1 * np.sqrt(1 - keep_B[:, None] ** 2)
    days_B1 = draws.log_uniform("growth/days", 1, low=30.0, high=3000.0) * length_B[:, None]
    return walk_BT + np.tanh(draws.normal("growth", 1) * np.arange(num_steps) / days_B1)


def _holidays(draws: Draws, day_BT: np.ndarray, settings: CountConfig) -> np.ndarray:
    """(B, T), logarithms: one day in twenty to sixty, most of them quiet."""
    num_days = day_BT.shape[1] // min(settings.steps_per_day) + 9
    share_B1 = draws.log_uniform("holidays/share", 1, low=1 / 60, high=1 / 20)
    share_B1 *= draws.happens("holidays", 1, probability=settings.holidays)
    is_BD = draws.uniform("holidays/day", num_days) < share_B1
    effect_B1 = draws.uniform("holidays/effect", 1, low=0.5, high=2.5)
    effect_B1 *= np.where(draws.happens("holidays/busy", 1, probability=0.2), 0.4, -1.0)
    return effect_B1 * np.take_along_axis(is_BD, day_BT, axis=1)


def _open(
    draws: Draws, length_B: np.ndarray, start_B: np.ndarray, day_BT: np.ndarray, settings: CountConfig
) -> np.ndarray:
    """bool (B, T): opening hours of days with hours, and for the others and some of those, days of the week."""
    opens_B1 = np.floor(draws.uniform("hours/open", 1, low=0.2, high=0.45) * length_B[:, None])
    closes_B1 = np.ceil(draws.uniform("hours/close", 1, low=0.6, high=0.95) * length_B[:, None])
    hour_BT = (np.arange(day_BT.shape[1]) + start_B[:, None]) % length_B[:, None]
    closed_days_B1 = draws.integers("days/closed", 1, low=1, high=3)
    closed_days_B1[(length_B > 1) & draws.happens("days/open", probability=0.5)] = 0
    open_BT = (hour_BT >= opens_B1) & (hour_BT < closes_B1) & (day_BT % 7 < 7 - closed_days_B1)
    return open_BT | ~_closes(draws, settings)[:, None]


PROCESS = StochasticProcess(
    name="count",
    sentence="Counted visits with profiles of day and week, closed hours, holidays.",
    settings=CountConfig,
    generate=generate,
    kinds=kinds,
)
