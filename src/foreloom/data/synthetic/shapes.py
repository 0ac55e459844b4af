"""What series are put together from: seasons, stretches between change points, recursions, counts, units.

Axes: B series, P positions in the longest period, K harmonics, N stretches or numbers left to place, T steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from foreloom.data.synthetic.process import Draws

_NUM_HARMONICS = 6
_MOST_LEVELS = 60
"""The longest period whose positions each have a level of their own: months have, minutes do not."""
_LARGE = 30.0
"""Rates from which a Poisson number is taken for a rounded normal one: its skew is under 0.2 there."""
_CENTRED = 0.25
"""Share of series about zero, as anomalies, differences and returns are."""
_NEGATIVE = 0.1
"""Share of those far from zero that lie below it."""


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


class Stretches(NamedTuple):
    """The stretches of a batch of series. What holds in a stretch is drawn N a series and read by `held`."""

    number_BT: np.ndarray
    """int64, the stretch of each step, from 0."""
    age_BT: np.ndarray
    """int64, steps since the stretch began; the first stretch begins at step 0."""
    most: int
    """N: no series has more stretches."""

    def held(self, value_BN: np.ndarray) -> np.ndarray:
        """(B, T): at each step the value of its stretch."""
        return np.take_along_axis(value_BN, self.number_BT, axis=1)


def stretches(draws: Draws, use: str, mean_BN: np.ndarray, shortest: int, num_steps: int) -> Stretches:
    """Stretches of at least `shortest` steps and `mean_BN` steps on average (one column for all stretches of a series,
    or one each; at least `shortest`), their lengths memoryless beyond the shortest. The first began before step 0."""
    num_ends = most_ends(shortest, num_steps)
    spare_BN = -np.log1p(-draws.uniform(f"{use}/length", num_ends)) * (mean_BN[:, :num_ends] - shortest)
    end_BN = np.cumsum(shortest + np.floor(spare_BN).astype(np.int64), axis=1)
    end_BN -= draws.integers(f"{use}/before", 1, high=shortest)
    return begun(end_BN, num_steps)


def begun(start_BN: np.ndarray, num_steps: int) -> Stretches:
    """The stretches that begin at those steps: whole numbers from 0, rising; stretch n + 1 begins at the n-th."""
    begins_BT = np.zeros((len(start_BN), num_steps + 1), dtype=bool)
    begins_BT[np.arange(len(start_BN))[:, None], np.minimum(start_BN, num_steps)] = True
    begins_BT = begins_BT[:, :num_steps]
    step_T = np.arange(num_steps)
    began_BT = np.maximum.accumulate(np.where(begins_BT, step_T, 0), axis=1)
    return Stretches(np.cumsum(begins_BT, axis=1), step_T - began_BT, start_BN.shape[1] + 1)


def most_ends(shortest: int, num_steps: int) -> int:
    """How many stretches of the shortest length can end within the steps, the first under way at their start."""
    return num_steps // shortest + 1


def decayed_sums(x_BT: np.ndarray, keep_B: np.ndarray) -> np.ndarray:
    """float64 (B, T): y[t] = keep * y[t-1] + x[t], from y = 0 before the first step; `keep_B` lies in [0, 1]."""
    y_TB = np.array(x_BT.T, order="C")
    for step in range(1, len(y_TB)):
        y_TB[step] += keep_B * y_TB[step - 1]
    return y_TB.T


def autoregression(shock_BT: np.ndarray, keep_B: np.ndarray) -> np.ndarray:
    """float64 (B, T): the stationary AR(1) of variance 1 that shocks of variance 1 drive, in its stationary law from
    the first step on. `keep_B` is its correlation one step apart, in [0, 1)."""
    scaled_BT = shock_BT * np.sqrt(1 - keep_B[:, None] ** 2)
    scaled_BT[:, 0] = shock_BT[:, 0]
    return decayed_sums(scaled_BT, keep_B)


def poisson(draws: Draws, use: str, rate_BT: np.ndarray) -> np.ndarray:
    """float64 (B, T), whole numbers: Poisson of those rates, by inversion where they are small."""
    num_steps = rate_BT.shape[1]
    count_BT = np.rint(rate_BT + np.sqrt(rate_BT) * draws.normal(f"{use}/large", num_steps))
    small_BT = rate_BT < _LARGE
    count_BT[small_BT] = _inverted(draws.uniform(f"{use}/small", num_steps)[small_BT], rate_BT[small_BT])
    return np.maximum(count_BT, 0.0)


def negative_binomial(draws: Draws, use: str, mean_BT: np.ndarray, shape_B: np.ndarray) -> np.ndarray:
    """float64 (B, T), whole numbers of mean `mean` and variance `mean + mean**2 / shape`: Poisson of rates that are
    gamma distributed. The gamma numbers are cubes of normal ones (Wilson and Hilferty 1931), close from shape 0.5 on.
    """
    ninth_B1 = 1 / (9 * shape_B[:, None])
    normal_BT = draws.normal(f"{use}/rate", mean_BT.shape[1])
    gamma_BT = np.maximum(1 - ninth_B1 + normal_BT * np.sqrt(ninth_B1), 0.0) ** 3
    return poisson(draws, use, mean_BT * gamma_BT)


def _inverted(uniform_N: np.ndarray, rate_N: np.ndarray) -> np.ndarray:
    """The least count whose cumulated probability exceeds the uniform number."""
    count_N = np.zeros(len(rate_N))
    left = np.arange(len(rate_N))
    term_N = np.exp(-rate_N)
    below_N = term_N.copy()
    for count in range(1, int(8 * _LARGE)):
        beyond = uniform_N >= below_N
        left, uniform_N, rate_N = left[beyond], uniform_N[beyond], rate_N[beyond]
        if not len(left):
            break
        count_N[left] = count
        term_N = term_N[beyond] * rate_N / count
        below_N = below_N[beyond] + term_N
    return count_N


def scaled(draws: Draws, x_BT: np.ndarray) -> np.ndarray:
    """(B, T): each series times a number of its own in 0.01 .. 10,000. Zeros and signs stay."""
    return x_BT * draws.log_uniform("unit/scale", 1, low=1e-2, high=1e4)


def shifted_and_scaled(draws: Draws, x_BT: np.ndarray) -> np.ndarray:
    """(B, T): series that vary by about 1 about 0, most of them moved 1 .. 50 away from it, then scaled."""
    level_B1 = draws.log_uniform("unit/level", 1, low=1.0, high=50.0)
    level_B1 *= np.where(draws.happens("unit/negative", 1, probability=_NEGATIVE), -1.0, 1.0)
    level_B1[draws.happens("unit/centred", 1, probability=_CENTRED)] = 0.0
    return scaled(draws, x_BT + level_B1)
