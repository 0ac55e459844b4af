"""A picture of replayed windows: every row of each, the cut, and where a value is infinite.

Axes: R rows, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from foreloom.report.figures import PANEL_INCHES
from foreloom.report.style import BLUE, MUTED, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from foreloom.data.stream.replay import ReplayedWindow

TITLE_LENGTH = 44


@styled
def replay_figure(windows: Sequence[ReplayedWindow]) -> Figure:
    """A panel a window, context in blue and horizon in orange; an infinite value is a vertical line."""
    from matplotlib.figure import Figure

    num_columns = min(len(windows), 2)
    num_rows = math.ceil(len(windows) / num_columns)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * num_columns, height * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for ax, window in zip(axes, windows, strict=False):
        facts, values_RT = window.facts, window.values_RT
        finite_RT = np.where(np.isfinite(values_RT), values_RT, np.nan)
        steps_T = np.arange(values_RT.shape[1]) + facts.cut - facts.num_steps
        for row in finite_RT:
            ax.plot(steps_T[: facts.num_steps], row[: facts.num_steps], color=BLUE, linewidth=0.9)
            ax.plot(steps_T[facts.num_steps :], row[facts.num_steps :], color=ORANGE, linewidth=0.9)
        ax.axvline(facts.cut - 0.5, color=MUTED, linewidth=0.8, linestyle=":")
        for step in steps_T[np.isinf(values_RT).any(axis=0)]:
            ax.axvline(step, color=ORANGE, linewidth=1.5)
        title = f"sample {facts.sample} · {facts.series}"
        ax.set_title(title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1] + "…").set_parse_math(False)
    for ax in axes[len(windows) :]:
        ax.remove()
    return figure
