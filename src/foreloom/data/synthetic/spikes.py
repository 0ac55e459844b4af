"""Sensors and loads with events: spike trains, bursts that decay, dropouts, steps, clipping, fill and drain.

Axes: B series, N events, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from foreloom.config.section import section
from foreloom.data.synthetic.process import Draws, Noise, Periods, Several, StochasticProcess
from foreloom.data.synthetic.shapes import autoregression, begun, scaled, season, stretches

Kind = Literal["train", "bursts", "dropouts", "steps", "clipped", "sawtooth"]
_ALL: tuple[Kind, ...] = get_args(Kind)

_LARGEST_HEIGHT = 100.0
_SHORTEST_EVENT = 3


@section
class SpikesConfig:
    """Spikes, dropouts and level shifts on a quiet signal."""

    kinds: Several[Kind] = _ALL
    """train: a spike every period. bursts: spikes at random that decay. dropouts: a signal that falls to 0 or sticks
    for a while. steps: a machine between a few levels. clipped: a signal cut at its bounds. sawtooth: what fills
    evenly and is emptied at once, or the other way round."""
    periods: Periods = (7, 12, 24, 30, 48, 52, 60, 96, 144, 168, 288)
    """Steps from spike to spike of a train, and the season of what lies below."""
    noise: Noise = 0.3
    """The most noise of the quiet signal, in its own strength (a spike is 2 to 100 of them); series have from a
    hundredth of it, log-uniform."""


def generate(draws: Draws, num_steps: int, settings: SpikesConfig) -> np.ndarray:
    """float64 (B, T): a quiet signal of strength about 1, and what the kind says."""
    kind_B = _kind(draws, settings)
    period_B = draws.pick("period", settings.periods)
    quiet_BT = _quiet(draws, period_B, num_steps, settings)
    series_BT = np.empty_like(quiet_BT)
    for kind, events in _EVENTS.items():
        rows = np.flatnonzero(kind_B == kind)
        series_BT[rows] = events(draws.rows(rows), quiet_BT[rows], period_B[rows])
    return scaled(draws, series_BT)


def kinds(draws: Draws, settings: SpikesConfig) -> Sequence[str]:
    return _kind(draws, settings).tolist()


def _kind(draws: Draws, settings: SpikesConfig) -> np.ndarray:
    return draws.pick("kind", settings.kinds)


def _quiet(draws: Draws, period_B: np.ndarray, num_steps: int, settings: SpikesConfig) -> np.ndarray:
    """(B, T): a season, or nothing but noise; above zero most of the time."""
    strength_B1 = draws.uniform("quiet/season", 1, low=0.3, high=1.0)
    strength_B1 *= draws.happens("quiet/seasonal", 1, probability=0.6)
    noise_B1 = settings.noise * draws.log_uniform("quiet/noise", 1, low=0.01, high=1.0)
    keep_B = draws.uniform("quiet/keep", high=0.98) * draws.happens("quiet/lasting", probability=0.5)
    noise_BT = noise_B1 * autoregression(draws.normal("quiet/shock", num_steps), keep_B)
    level_B1 = draws.log_uniform("quiet/level", 1, low=0.1, high=20.0)
    season_BT = season(draws, "quiet", period_B, max(settings.periods), num_steps)
    return level_B1 + strength_B1 * season_BT + noise_BT


def _train(draws: Draws, quiet_BT: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """Spike n comes at start + n periods, a little early or late in a third of the series."""
    num_steps = quiet_BT.shape[1]
    # As many as of the shortest season there can be.
    num_spikes = num_steps // 2 + 2
    jitter_BN = draws.uniform("train/jitter", num_spikes, low=-0.15, high=0.15)
    jitter_BN *= draws.happens("train/jitters", 1, probability=1 / 3)
    at_BN = (np.arange(num_spikes) + draws.uniform("train/start", 1) + jitter_BN) * period_B[:, None]
    spike = begun(np.maximum(np.rint(at_BN), 0).astype(np.int64), num_steps)
    return quiet_BT + spike.held(_heights(draws, spike.most)) * _decay(draws, spike.age_BT)


def _bursts(draws: Draws, quiet_BT: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """Events at random, with heights of a fat tail and one decay a series."""
    num_steps = quiet_BT.shape[1]
    mean_B1 = draws.log_uniform("bursts/gap", 1, low=15.0, high=150.0)
    burst = stretches(draws, "bursts", mean_B1, _SHORTEST_EVENT, num_steps)
    tail_BN = (1 - draws.uniform("bursts/tail", burst.most)) ** -0.4
    height_BN = np.minimum(_heights(draws, burst.most) * tail_BN, _LARGEST_HEIGHT)
    return quiet_BT + burst.held(height_BN) * _decay(draws, burst.age_BT)


def _heights(draws: Draws, num_events: int) -> np.ndarray:
    """(B, N): near one height a series, equal in a third of them; none before the first event."""
    typical_B1 = draws.log_uniform("height/typical", 1, low=2.0, high=30.0)
    differ_B1 = draws.uniform("height/differ", 1, low=-0.25, high=0.5).clip(0.0)
    height_BN = typical_B1 * np.exp(differ_B1 * draws.normal("height/each", num_events))
    height_BN[:, 0] = 0.0
    return height_BN


def _decay(draws: Draws, age_BT: np.ndarray) -> np.ndarray:
    """(B, T): 1 at the event, then exponential; gone after one step in some series, after tens in others."""
    return np.exp(-age_BT / draws.log_uniform("decay", 1, low=0.2, high=30.0))


def _dropouts(draws: Draws, quiet_BT: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """Now and then the sensor gives 0 for a while, or goes on with its last value."""
    num_steps = quiet_BT.shape[1]
    up_and_down_B2 = np.concatenate(
        [
            draws.log_uniform("dropouts/up", 1, low=40.0, high=300.0),
            draws.log_uniform("dropouts/down", 1, low=4.0, high=60.0),
        ],
        axis=1,
    )
    state = stretches(draws, "dropouts", np.tile(up_and_down_B2, num_steps), _SHORTEST_EVENT, num_steps)
    down_BT = state.number_BT % 2 == 1
    last_BT = np.take_along_axis(quiet_BT, np.maximum(np.arange(num_steps) - state.age_BT - 1, 0), axis=1)
    sticks_B1 = draws.happens("dropouts/sticks", 1, probability=1 / 3)
    return np.where(down_BT, np.where(sticks_B1, last_BT, 0.0), quiet_BT)


def _steps(draws: Draws, quiet_BT: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """A machine that is off, or on at one of two to four levels; at rest it shows less of the quiet signal."""
    num_steps = quiet_BT.shape[1]
    mean_B1 = draws.log_uniform("steps/mean", 1, low=8.0, high=200.0)
    state = stretches(draws, "steps", mean_B1, _SHORTEST_EVENT, num_steps)
    level_BS = draws.uniform("steps/level", 4, low=1.0, high=20.0)
    level_BS[:, 0] = 0.0
    num_states_B1 = draws.integers("steps/states", 1, low=2, high=5)
    chosen_BN = (draws.uniform("steps/chosen", state.most) * num_states_B1).astype(np.int64)
    shows_B1 = draws.log_uniform("steps/shows", 1, low=0.02, high=1.0)
    level_BT = state.held(np.take_along_axis(level_BS, chosen_BN, axis=1))
    return level_BT + shows_B1 * quiet_BT * np.where(level_BT > 0, 1.0, 0.3)


def _clipped(draws: Draws, quiet_BT: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """Cut from above, from below, or both, somewhere within the swing of the signal, as solar power is by night."""
    wave_BT = _swing(draws, quiet_BT, period_B)
    top_B1 = draws.uniform("clipped/top", 1, low=0.0, high=1.0)
    bottom_B1 = draws.uniform("clipped/bottom", 1, low=-1.0, high=0.0)
    side_B1 = draws.integers("clipped/side", 1, high=3)
    top_B1[side_B1 == 1] = np.inf
    bottom_B1[side_B1 == 0] = -np.inf
    # Measured from the lower bound, where there is one.
    zero_B1 = np.where(np.isfinite(bottom_B1), bottom_B1, 0.0)
    return np.clip(wave_BT, bottom_B1, top_B1) - zero_B1


def _swing(draws: Draws, quiet_BT: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """(B, T) about 0: a sine of the period whose height changes from day to day, and the quiet signal faintly."""
    num_steps = quiet_BT.shape[1]
    turn_BT = np.arange(num_steps) / period_B[:, None] + draws.uniform("swing/start", 1)
    low_B1 = draws.uniform("swing/lowest", 1, low=0.3, high=1.0)
    height_BN = low_B1 + (1.3 - low_B1) * draws.uniform("swing/height", num_steps // 2 + 2)
    height_BT = np.take_along_axis(height_BN, turn_BT.astype(np.int64), axis=1)
    faint_B1 = draws.log_uniform("swing/quiet", 1, low=0.02, high=0.3)
    return height_BT * np.sin(2 * np.pi * turn_BT) + faint_B1 * (quiet_BT - quiet_BT[:, :1])


def _sawtooth(draws: Draws, quiet_BT: np.ndarray, period_B: np.ndarray) -> np.ndarray:
    """A stock that grows at one rate since it was last emptied; mirrored for half the series: one that is used up."""
    num_steps = quiet_BT.shape[1]
    period_B1 = np.maximum(period_B[:, None], 8).astype(float)
    spread_B1 = draws.uniform("sawtooth/spread", 1, low=0.0, high=0.4)
    gap_BN = period_B1 * (1 + spread_B1 * draws.uniform("sawtooth/gap", num_steps // 4 + 2, low=-1.0, high=1.0))
    gap_BN[:, 0] *= draws.uniform("sawtooth/start")
    stock = begun(np.cumsum(gap_BN, axis=1).astype(np.int64), num_steps)
    rate_BN = np.exp(spread_B1 * draws.normal("sawtooth/rate", stock.most))
    filled_BT = np.minimum(stock.held(rate_BN) * stock.age_BT / period_B1, 3.0)
    mirrored_B1 = draws.happens("sawtooth/mirrored", 1, probability=0.5)
    faint_B1 = draws.log_uniform("sawtooth/quiet", 1, low=0.005, high=0.1)
    return np.where(mirrored_B1, 3.0 - filled_BT, filled_BT) + faint_B1 * (quiet_BT - quiet_BT[:, :1])


_EVENTS: dict[str, Callable[[Draws, np.ndarray, np.ndarray], np.ndarray]] = {
    "train": _train,
    "bursts": _bursts,
    "dropouts": _dropouts,
    "steps": _steps,
    "clipped": _clipped,
    "sawtooth": _sawtooth,
}

PROCESS = StochasticProcess(
    name="spikes",
    sentence="Spike trains, decaying bursts, sensor dropouts, machine steps, clipped and sawtooth signals.",
    settings=SpikesConfig,
    generate=generate,
    kinds=kinds,
)
