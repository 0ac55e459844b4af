"""Four simple patterns, a quarter of the series each: something to see a model learn from within minutes.

As in the sample data that Chronos-T5 trainers begin with. Axes: B series, T steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from foreloom.config.section import section
from foreloom.data.synthetic.process import Draws, StochasticProcess

KINDS = ("trend", "seasonal", "noise", "mixed")
"""Series i is of kind i % 4."""
_DEVIATIONS = np.array([0.1, 0.2, 1.0, 0.3])
_OFFSET_DEVIATION = 2.0


@section
class PatternsConfig:
    """Nothing to set."""


def _generate(draws: Draws, num_steps: int, settings: PatternsConfig) -> np.ndarray:
    t = np.linspace(0, 4 * np.pi, num_steps)
    curve_KT = np.stack(
        [0.5 * t, 3 * np.sin(t) + 2 * np.sin(2 * t), 0.1 * np.sin(t), 0.2 * t + 2 * np.sin(t) + np.sin(3 * t)]
    )
    kind_B = draws.item_B % len(KINDS)
    noise_BT = draws.normal("noise", num_steps) * _DEVIATIONS[kind_B, None]
    offset_B = draws.normal("offset") * _OFFSET_DEVIATION
    return curve_KT[kind_B] + noise_BT + offset_B[:, None]


def _kinds(draws: Draws, settings: Any) -> list[str]:
    return [KINDS[kind] for kind in draws.item_B % len(KINDS)]


PROCESS = StochasticProcess(
    name="patterns",
    sentence="A straight line, two sines, noise, or all of them: four patterns a model should tell apart at once.",
    settings=PatternsConfig,
    generate=_generate,
    kinds=_kinds,
)
