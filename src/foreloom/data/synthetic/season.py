"""Profiles that come again every period: smooth ones, peaks, plateaus, a level a position; and weeks of days.

Axes: B series, P positions in the longest period, K harmonics, T steps.
"""

from __future__ import annotations

import numpy as np

from foreloom.data.synthetic.draws import Draws

_NUM_HARMONICS = 6
_MOST_LEVELS = 60
"""The longest period whose positions each have a level of their own: months have, minutes do not."""


def profile(draws: Draws, use: str, period_B: np.ndarray, longest: int) -> np.ndarray:
    """float64 (B, P): a random shape for each series' period, of mean 0 and deviation 1 over it; what lies past the
    period is 0. `longest` is P, the same for every batch."""
    kind_B = draws.integers(f"{use}/shape", high=4)
    kind_B[(kind_B == 3) & (period_B > _MOST_LEVELS)] = 0
    shape_BP = np.empty((len(period_B), longest))
    for kind, shape in enumerate((_harmonics, _peaks, _plateau, _levels)):
        rows = np.flatnonzero(kind_B == kind)
        turn_BP = np.arange(longest) / period_B[rows, None]
        shape_BP[rows] = shape(draws.rows(rows), use, turn_BP)
    return _standardized(shape_BP, period_B)


def repeat(profile_BP: np.ndarray, period_B: np.ndarray, start_B: np.ndarray, num_steps: int) -> np.ndarray:
    """float64 (B, T): the profile over and over, from position `start_B` of it."""
    position_BT = (np.arange(num_steps) + start_B[:, None]) % period_B[:, None]
    return np.take_along_axis(profile_BP, position_BT, axis=1)


def season(draws: Draws, use: str, period_B: np.ndarray, longest: int, num_steps: int) -> np.ndarray:
    """float64 (B, T): a random profile repeated, from a random position of it."""
    start_B = (draws.uniform(f"{use}/start") * period_B).astype(np.int64)
    return repeat(profile(draws, use, period_B, longest), period_B, start_B, num_steps)


def weekdays(draws: Draws, use: str, days_BT: np.ndarray) -> np.ndarray:
    """float64 (B, T) of mean 0 and deviation 1 over the days of a week: working days nearly alike, two days of the
    weekend apart, below them more often than above; the last quarter of a day leads over to the next one. `days_BT`
    are days, with fractions, since the midnight before a Monday."""
    level_BD = 0.15 * draws.normal(f"{use}/day", 7)
    weekend_B2 = draws.uniform(f"{use}/weekend", 2, low=0.3, high=1.5)
    level_BD[:, 5:] += np.where(draws.happens(f"{use}/busy", 1, probability=0.25), weekend_B2, -weekend_B2)
    level_BD = _standardized(level_BD, np.full(len(level_BD), 7))
    day_BT = np.floor(days_BT).astype(np.int64)
    next_BT = np.maximum(4 * (days_BT - day_BT) - 3, 0.0)
    today_BT, tomorrow_BT = (np.take_along_axis(level_BD, number_BT % 7, axis=1) for number_BT in (day_BT, day_BT + 1))
    return today_BT + next_BT * (tomorrow_BT - today_BT)


def _standardized(shape_BP: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    inside_BP = np.arange(shape_BP.shape[1]) < period_B[:, None]
    period_B1 = period_B[:, None]
    centred_BP = np.where(inside_BP, shape_BP - (shape_BP * inside_BP).sum(axis=1, keepdims=True) / period_B1, 0.0)
    deviation_B1 = np.sqrt((centred_BP**2).sum(axis=1, keepdims=True) / period_B1)
    # A plateau as long as a short period is flat: such a series has no season.
    return centred_BP / np.where(deviation_B1 > 1e-6, deviation_B1, 1.0)


def _harmonics(draws: Draws, use: str, turn_BP: np.ndarray) -> np.ndarray:
    """A random Fourier series whose amplitudes fall as a power of the harmonic, some gently and some at once."""
    power_B1 = draws.uniform(f"{use}/fall", 1, low=0.5, high=3.0)
    fall_BK = np.arange(1, _NUM_HARMONICS + 1) ** -power_B1
    weight_BK = fall_BK * (draws.normal(f"{use}/cos", _NUM_HARMONICS) + 1j * draws.normal(f"{use}/sin", _NUM_HARMONICS))
    circle_BP = np.exp(2j * np.pi * turn_BP)
    total_BP = np.zeros_like(circle_BP)
    for harmonic in reversed(range(_NUM_HARMONICS)):  # Horner's scheme: harmonic k is the k-th power of the circle.
        total_BP = (total_BP + weight_BK[:, harmonic, None]) * circle_BP
    return total_BP.real


def _peaks(draws: Draws, use: str, turn_BP: np.ndarray) -> np.ndarray:
    """Two peaks of their own height and width, as the morning and the evening of a load."""
    at_B2 = draws.uniform(f"{use}/at", 2)
    sharpness_B2 = draws.log_uniform(f"{use}/sharpness", 2, low=1.0, high=40.0)
    height_B2 = draws.uniform(f"{use}/height", 2, low=-0.3, high=1.0)
    height_B2[:, 0] = 1.0
    total_BP = np.zeros_like(turn_BP)
    for peak in range(2):
        near_BP = np.cos(2 * np.pi * (turn_BP - at_B2[:, peak, None])) - 1
        total_BP += height_B2[:, peak, None] * np.exp(sharpness_B2[:, peak, None] * near_BP)
    return total_BP


def _plateau(draws: Draws, use: str, turn_BP: np.ndarray) -> np.ndarray:
    """Up for a part of the period and down for the rest, with edges from soft to hard, as working hours."""
    half_B1 = np.pi * draws.uniform(f"{use}/width", 1, low=0.2, high=0.7)
    steepness_B1 = draws.log_uniform(f"{use}/steepness", 1, low=2.0, high=50.0)
    near_BP = np.cos(2 * np.pi * (turn_BP - draws.uniform(f"{use}/middle", 1)))
    return np.tanh(steepness_B1 * (near_BP - np.cos(half_B1)))


def _levels(draws: Draws, use: str, turn_BP: np.ndarray) -> np.ndarray:
    """A level of its own for each position."""
    num_levels = min(turn_BP.shape[1], _MOST_LEVELS)
    level_BP = np.zeros_like(turn_BP)
    level_BP[:, :num_levels] = draws.normal(f"{use}/level", num_levels)
    return level_BP
