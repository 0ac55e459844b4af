"""Random causal networks: what is seen is caused, with delays and bends, by signals that are not.

Axes: B series, R roots, M nodes, K parents of a node, T steps.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from foreloom.config.section import section
from foreloom.data.synthetic.process import COMMON_PERIODS, Draws, Noise, Periods, StochasticProcess
from foreloom.data.synthetic.shapes import autoregression, season, shifted_and_scaled, stretches

_NUM_PARENTS = 2
_SHORTEST_LEVEL = 20
_BENDS = (
    lambda x: x,
    lambda x: 1.5 * np.tanh(x),
    lambda x: np.maximum(x, 0.1 * x),
    lambda x: np.sin(1.5 * x),
    lambda x: np.abs(x) - 0.8,
)
"""What a node makes of its sum: as it is, saturated, rectified, folded, without its sign."""


@section
class CausalConfig:
    """Structural causal models."""

    num_nodes: Annotated[int, Field(ge=1, le=32)] = 4
    """Nodes beside the four roots (two seasons, a slow drift, a level that steps). The last one is seen."""
    most_lag: Annotated[int, Field(ge=0, le=512)] = 24
    """The most steps from a cause to its effect; half of the causes act at once."""
    periods: Periods = COMMON_PERIODS
    """Lengths of the seasons of the roots, in steps."""
    noise: Noise = 0.1
    """The most noise that a node adds to what it is caused by, in the deviation of a root; series have from a hundredth
    of it, log-uniform."""


def generate(draws: Draws, num_steps: int, settings: CausalConfig) -> np.ndarray:
    """float64 (B, T), after CauKer (Xie et al. 2025): roots are base signals, each node a bent, weighted sum of two of
    those before it, the last of which is always one."""
    num_all = num_steps + settings.most_lag * settings.num_nodes
    roots = _roots(draws, num_all, settings)
    signal_MBT = np.empty((len(roots) + settings.num_nodes, *roots[0].shape))
    signal_MBT[: len(roots)] = roots
    noise_B1 = settings.noise * draws.log_uniform("noise", 1, low=0.01, high=1.0)
    row_B = np.arange(len(noise_B1))
    for node in range(settings.num_nodes):
        known = len(roots) + node
        parent_BK = draws.integers(f"node{node}/parent", _NUM_PARENTS, high=known)
        parent_BK[:, 0] = known - 1
        weight_BK = draws.uniform(f"node{node}/weight", _NUM_PARENTS, low=0.4, high=1.6)
        weight_BK *= draws.pick(f"node{node}/sign", (-1.0, 1.0))[:, None] ** np.arange(_NUM_PARENTS)
        lag_BK = draws.integers(f"node{node}/lag", _NUM_PARENTS, high=settings.most_lag + 1)
        lag_BK *= draws.happens(f"node{node}/delayed", _NUM_PARENTS, probability=0.5)
        total_BT = np.zeros_like(roots[0])
        for parent in range(_NUM_PARENTS):
            cause_BT = signal_MBT[parent_BK[:, parent], row_B]
            at_BT = np.maximum(np.arange(num_all) - lag_BK[:, parent, None], 0)
            total_BT += weight_BK[:, parent, None] * np.take_along_axis(cause_BT, at_BT, axis=1)
        bend_B = draws.integers(f"node{node}/bend", high=len(_BENDS))
        for number, bend in enumerate(_BENDS):
            total_BT[bend_B == number] = bend(total_BT[bend_B == number])
        signal_MBT[known] = total_BT + noise_B1 * draws.normal(f"node{node}/noise", num_all)
    return shifted_and_scaled(draws, signal_MBT[-1][:, num_all - num_steps :])


def _roots(draws: Draws, num_steps: int, settings: CausalConfig) -> list[np.ndarray]:
    """Four (B, T) of deviation about 1."""
    longest = max(settings.periods)
    period_B = draws.pick("roots/period", settings.periods)
    slower_B = draws.pick("roots/slower", settings.periods)
    keep_B = 1 - draws.log_uniform("roots/fade", low=0.001, high=0.3)
    drift_BT = autoregression(draws.normal("roots/shock", num_steps), keep_B)
    mean_B1 = draws.log_uniform("roots/mean", 1, low=40.0, high=400.0)
    between = stretches(draws, "roots/steps", mean_B1, _SHORTEST_LEVEL, num_steps)
    level_BT = between.held(draws.normal("roots/level", between.most))
    seasons = [
        season(draws, use, period, longest, num_steps)
        for use, period in (("roots/season", period_B), ("roots/second", slower_B))
    ]
    return [*seasons, drift_BT, level_BT]


PROCESS = StochasticProcess(
    name="causal",
    sentence="A signal caused by others, with delays, saturation and folds, through a random network.",
    settings=CausalConfig,
    generate=generate,
)
