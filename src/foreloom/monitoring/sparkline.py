"""Small pictures of text: sparklines, bars of a share and bars of expert loads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

LEVELS = " ▁▂▃▄▅▆▇█"
WIDTH = 20


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The finite values from lowest to highest level, one character each; means of neighbours where they are more than
    `width`. Values that are all equal are drawn at half height."""
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(finite))
    edges = [round(i * len(finite) / count) for i in range(count + 1)] if count else []
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    if high == low:
        return LEVELS[len(LEVELS) // 2] * count
    return "".join(LEVELS[round((mean - low) / (high - low) * (len(LEVELS) - 1))] for mean in means)


def bar(share: float, peak_share: float = 0.0, width: int = WIDTH) -> str:
    """`██████▒▒░░░░`: filled up to `share`, hatched up to `peak_share`, light up to 1."""
    filled = round(min(share, 1.0) * width)
    hatched = max(round(min(peak_share, 1.0) * width), filled)
    return "█" * filled + "▒" * (hatched - filled) + "░" * (width - hatched)


def load_bar(load: Sequence[float]) -> str:
    """A character an expert: half height where it got its even share, full from twice that on, blank where nothing."""
    even = sum(load) / len(load)
    if not even:
        return LEVELS[0] * len(load)
    highest = len(LEVELS) - 1
    return "".join(LEVELS[math.ceil(min(value / even / 2, 1.0) * highest - 1e-9)] for value in load)
