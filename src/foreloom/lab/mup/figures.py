"""Figures of the coordinate check and of learning-rate basins, a column a parametrization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foreloom.lab.mup.coordinates import LIMIT, LOGITS, Check
from foreloom.lab.mup.transfer import Basin
from foreloom.report.figures import PANEL_INCHES, panel_title
from foreloom.report.style import BLUE, GRID, INK, MUTED, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTHS = ("#9ecae1", "#6baed6", "#3182bd", "#08519c", "#08306b", "#041b3d")
"""From the narrowest to the widest."""


@styled
def check_figure(checks: Sequence[Check]) -> Figure:
    """mean |x_t - x_0| of every module over the size, in units of the smallest size's, after the first step (above) and
    the last (below): level lines pass, and those that leave the shaded band of slopes fail."""
    from matplotlib.figure import Figure

    last = max(one.step for one in checks[0].slopes)
    steps = [1, last] if last > 1 else [1]
    width, height = PANEL_INCHES
    size = (max(width * 0.8 * len(checks), width), height * len(steps) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(steps), len(checks), sharex=True, sharey="row", squeeze=False)
    handles: dict[str, Artist] = {}
    for row, step in enumerate(steps):
        for column, check in enumerate(checks):
            ax = axes[row][column]
            handles |= _draw_check(ax, check, step)
            after = "step" if step == 1 else "steps"
            panel_title(ax, f"{check.kind}, {step} {after}")
            ax.text(0.03, 0.93, _verdict(check, step), transform=ax.transAxes, color=MUTED, va="top", fontsize=8)
            if row == len(steps) - 1:
                ax.set_xlabel(check.axis)
            if column == 0:
                ax.set_ylabel(f"change, {check.axis} {check.sizes[0]} = 1")
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles))
    return figure


def _verdict(check: Check, step: int) -> str:
    slopes = [one.judged_slope for one in check.slopes if one.step == step and one.judged_slope is not None]
    return f"slopes {min(slopes):+.2f} to {max(slopes):+.2f}" if slopes else "nothing moved"


def _draw_check(ax: Axes, check: Check, step: int) -> dict[str, Artist]:
    sizes = check.sizes
    handles: dict[str, Artist] = {}
    ratio = [size / sizes[0] for size in sizes]
    band = ax.fill_between(
        sizes, [x**-LIMIT for x in ratio], [x**LIMIT for x in ratio], color=GRID, alpha=0.6, linewidth=0
    )
    handles[f"slopes within {LIMIT}"] = band
    for one in check.slopes:
        if one.step != step or not all(value > 0 for value in one.judged):
            continue
        is_logits = one.module == LOGITS
        line = ax.plot(
            sizes, [value / one.judged[0] for value in one.judged],
            color=ORANGE if is_logits else BLUE, linewidth=1.6 if is_logits else 0.8, alpha=1.0 if is_logits else 0.55,
            zorder=3 if is_logits else 2,
        )[0]  # fmt: skip
        handles["logits" if is_logits else "a module"] = line
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(sizes, [f"{size}" for size in sizes])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")
    return dict(sorted(handles.items()))


@styled
def basin_figure(basins: Sequence[Basin]) -> Figure:
    """Loss over log2 of the learning rate, a line a width, its best marked; runs that diverged leave the panel."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(one.kind for one in basins))
    width, height = PANEL_INCHES
    figure = Figure(figsize=(max(width * 0.8 * len(kinds), width), height + 0.5), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    losses = [loss for one in basins for loss in one.losses.values() if math.isfinite(loss)]
    lowest = min(losses, default=0.0)
    # The basins, not what diverged, decide the height.
    most = [sorted(one.losses.values())[round(0.8 * (len(one.losses) - 1))] for one in basins]
    highest = min(max(losses, default=1.0), max(most))
    for ax, kind in zip(axes, kinds, strict=True):
        own = [one for one in basins if one.kind == kind]
        for number, one in enumerate(own):
            colour = _WIDTHS[round(number * (len(_WIDTHS) - 1) / max(len(own) - 1, 1))]
            rates = [rate for rate in sorted(one.losses) if math.isfinite(one.losses[rate])]
            ax.plot(
                rates, [one.losses[rate] for rate in rates], color=colour, linewidth=1.3, label=f"width {one.width}"
            )
            ax.plot([one.best], [one.loss], "o", color=colour, markersize=5)
        ax.axvline(own[0].best, color=MUTED, linewidth=0.8, linestyle=":")
        panel_title(ax, kind)
        ax.set_xlabel("log2 of the learning rate")
        ax.xaxis.set_major_formatter("{x:g}")
    margin = 0.06 * (highest - lowest)
    if highest > lowest and math.isfinite(highest):
        axes[0].set_ylim(lowest - margin, highest + margin)
    axes[0].set_ylabel("loss", color=INK)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    return figure
