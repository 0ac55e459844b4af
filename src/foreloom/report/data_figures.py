"""Figures of data: what a data set holds, synthetic series by kind, the windows of a training step.

Axes: R rows, T steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foreloom.report.figures import PANEL_INCHES, panel_title, plain_ticks
from foreloom.report.style import BLUE, MUTED, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from foreloom.data.stream.replay import ReplayedWindow
    from foreloom.data.synthetic.source import SyntheticSource

WINDOW_TITLE_LENGTH = 44
NUM_SYNTHETIC = 6
SYNTHETIC_INCHES = (3.6, 1.25)


@styled
def dataset_figure(examples: Mapping[str, tuple[np.ndarray, np.ndarray]], lengths: np.ndarray) -> Figure:
    """What a data set looks like: up to eight series by name, above the histogram of all lengths (N,).

    An example is (steps, values), (T,) each, so that a long series may be shown by every k-th step.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    assert examples, "an empty data set is refused where it is opened"
    names = list(examples)[:8]
    num_columns = min(len(names), 2)
    cells: list[Hashable] = [*range(len(names)), *["."] * (len(names) % num_columns), *["lengths"] * num_columns]
    mosaic: list[list[Any]] = [cells[i : i + num_columns] for i in range(0, len(cells), num_columns)]
    figure = Figure(figsize=(PANEL_INCHES[0] * num_columns, 1.4 * len(mosaic)), layout="constrained")
    axes = figure.subplot_mosaic(mosaic)
    for ax in axes.values():
        plain_ticks(ax)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.margins(x=0.01)
    for i, name in enumerate(names):
        axes[i].plot(*examples[name], color=BLUE, linewidth=0.9)
        panel_title(axes[i], name)

    ax = axes["lengths"]
    low, high = max(int(lengths.min()), 1), int(lengths.max())
    if high > 50 * low:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        bins = np.geomspace(low, high + 1, 41)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        bins = np.linspace(low - 0.5, high + 0.5, min(41, high - low + 2))
    ax.hist(lengths, bins=bins.tolist(), color=BLUE, alpha=0.75)
    ax.margins(x=4.0 if low == high else 0.01)
    panel_title(ax, f"Lengths of {len(lengths):,} series (time steps)")
    return figure


@styled
def synthetic_figure(source: SyntheticSource) -> Figure:
    """Six series with their kinds, of as many different kinds as there are among the first hundred."""
    from matplotlib.figure import Figure

    items = _varied(source.kinds(np.arange(min(len(source), 100))), NUM_SYNTHETIC)
    num_rows = -(-len(items) // 2)
    width, height = SYNTHETIC_INCHES
    figure = Figure(figsize=(2 * width, height * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, 2, squeeze=False).ravel()
    for ax, item in zip(axes, items, strict=False):
        series = source.read(item)
        ax.plot(series.target_VT[0], color=BLUE, linewidth=0.8)
        ax.set_title(series.static["kind"], fontsize=8)
        ax.margins(x=0.01)
        ax.tick_params(labelsize=7)
        ax.locator_params(nbins=4)
    for ax in axes[max(len(items) - 2, 0) : len(items)]:
        ax.set_xlabel("step", fontsize=7)
    for ax in axes[len(items) :]:
        ax.set_visible(False)
    return figure


def _varied(kinds: Sequence[str], count: int) -> list[int]:
    """Places of `count` series: of every kind the first, then of every kind the second, and so on."""
    seen: Counter[str] = Counter()
    rank = []
    for kind in kinds:
        rank.append(seen[kind])
        seen[kind] += 1
    return sorted(np.argsort(rank, kind="stable")[:count].tolist())


@styled
def replay_figure(windows: Sequence[ReplayedWindow]) -> Figure:
    """A panel a window: the targets' context in blue and horizon in orange, covariates in grey; an infinite value is a
    vertical line."""
    from matplotlib.figure import Figure

    num_columns = min(len(windows), 2)
    num_rows = math.ceil(len(windows) / num_columns)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * num_columns, height * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for ax, window in zip(axes, windows, strict=False):
        facts, values_RT = window.facts, window.values_RT
        finite_RT = np.where(np.isfinite(values_RT), values_RT, np.nan)
        steps_T = np.arange(values_RT.shape[1]) + facts.cut - facts.num_steps
        for row in finite_RT[window.num_targets :]:
            (handles["covariates"],) = ax.plot(steps_T, row, color=MUTED, linewidth=0.8, alpha=0.6)
        parts = {"context": (slice(facts.num_steps), BLUE), "horizon": (slice(facts.num_steps, None), ORANGE)}
        for row in finite_RT[: window.num_targets]:
            for name, (part, colour) in parts.items():
                (handles[name],) = ax.plot(steps_T[part], row[part], color=colour, linewidth=0.9)
        ax.axvline(facts.cut - 0.5, color=MUTED, linewidth=0.8, linestyle=":")
        for step in steps_T[np.isinf(values_RT).any(axis=0)]:
            ax.axvline(step, color=ORANGE, linewidth=1.5)
        title = f"sample {facts.sample} · {facts.series}"
        ax.set_title(
            title if len(title) <= WINDOW_TITLE_LENGTH else title[: WINDOW_TITLE_LENGTH - 1] + "…"
        ).set_parse_math(False)
    for ax in axes[len(windows) :]:
        ax.remove()
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles))
    return figure
