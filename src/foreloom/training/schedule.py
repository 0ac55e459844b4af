"""Learning-rate schedules: pure functions of the update's number.

k is the update (1 .. S), S the number of updates of the run, W of the warm-up, D of the final decay.
"""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "wsd", "constant"]


def num_warmup_updates(num_updates: int, *, warmup_steps: int, warmup_ratio: float) -> int:
    """W, from whichever of the two settings is given."""
    return warmup_steps or math.ceil(warmup_ratio * num_updates)


def schedule_factor(
    schedule: Schedule, k: int, num_updates: int, *, num_warmup: int = 0, num_decay: int = 0, final_ratio: float = 0.0
) -> float:
    """What update `k` multiplies the peak learning rate by.

    Warm-up rises linearly: k / (W + 1) for k <= W, so that update W + 1 is the first at the peak. After it, with
    u = (k - 1 - W) / (S - W):

    - cosine: (1 + cos(pi u)) / 2 (Loshchilov and Hutter, 2017)
    - linear: 1 - u
    - wsd: 1 until the last D updates, then linear (warmup-stable-decay; Hu et al., 2024)
    - constant: 1

    The decaying part ends at `final_ratio` instead of 0. Update S itself is one notch above the end, as update 1 is at
    the peak.
    """
    assert 1 <= k <= num_updates and num_warmup + num_decay <= num_updates
    if k <= num_warmup:
        return k / (num_warmup + 1)
    match schedule:
        case "constant":
            return 1.0
        case "wsd":
            shape = min(1.0, (num_updates - k + 1) / num_decay)
        case "linear":
            shape = 1.0 - (k - 1 - num_warmup) / (num_updates - num_warmup)
        case "cosine":
            shape = (1.0 + math.cos(math.pi * (k - 1 - num_warmup) / (num_updates - num_warmup))) / 2.0
    return final_ratio + (1.0 - final_ratio) * shape
