"""How a history is parted for tuning: what is trained on, what candidates are chosen by, and what has the last word.

    | training ............ | holdout | selection windows | verdict windows |

The holdout is the trainer's own: it ends a training early. No candidate sees the selection. By the verdict
none is chosen: what was chosen is kept, or what lies halfway to it, or neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_WINDOWS = 12
"""Of a series, selection and verdict together."""
SHARE = 0.4
"""Most of a history that is kept from training."""
LEAST_HORIZONS = 4
"""That a history must span to be trained on and judged: a past, a target, and a window for selection and verdict."""
MOST_SCORED = 2000
"""Windows that a contender is scored on; of more series so many are chosen that there are no more."""


@dataclass(frozen=True)
class Windows:
    """Windows of one horizon at the end of every series, the horizon apart."""

    prediction_length: int
    num_selection: int
    num_verdict: int

    @property
    def num(self) -> int:
        return self.num_selection + self.num_verdict

    @property
    def num_steps(self) -> int:
        """That are kept from training, at the end of every series."""
        return self.num * self.prediction_length


def part(lengths: np.ndarray, prediction_length: int) -> Windows | None:
    """By the longer half of the series: a third of the windows, one at least, has the last word. None where their
    histories are too short for training and judging both.

    ValueError where no series holds even one window.
    """
    longest = int(lengths.max())
    if longest <= prediction_length:
        raise ValueError(
            f"the horizon of {prediction_length:,} steps is not shorter than the history: the longest of "
            f"{len(lengths):,} series has {longest:,} steps. Shorten the horizon (--horizon)."
        )
    usual = int(np.median(lengths[lengths >= np.median(lengths)]))
    if usual < LEAST_HORIZONS * prediction_length:
        return None
    num = min(max(int(SHARE * usual / prediction_length), 2), MOST_WINDOWS)
    num_verdict = max(num // 3, 1)
    return Windows(prediction_length, num - num_verdict, num_verdict)
