"""The held-out loss of both recipes as they train: a line for the mean over seeds, a band from the lowest to the
highest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from foreloom.report.ab.measures import Measured
from foreloom.report.ab.plan import Comparison
from foreloom.report.figures import panel_grid, panel_title, step_axis
from foreloom.report.style import BLUE, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT_OUT = 0.1
"""Share of a run at its beginning that is not drawn: the loss falls so far there that the rest would look flat."""
COMPUTE_ARM = "B-equal-compute"


@styled
def loss_figure(compared: Iterable[Comparison], measured: Sequence[Measured]) -> Figure:
    """A panel a comparison: over steps, or over the FLOPs spent where those are what both get the same of."""
    from matplotlib.ticker import EngFormatter

    compared = list(compared)
    figure, axes = panel_grid(1, len(compared))
    for ax, one in zip(axes, compared, strict=True):
        is_compute = one.arm == COMPUTE_ARM
        panel_title(ax, f"Held-out loss, {one.title[0].lower()}{one.title[1:]}")
        for name, arm, colour in (("A", "A", BLUE), ("B", one.arm, ORANGE)):
            runs = [run for run in measured if run.job.training.arm == arm]
            if runs:
                _draw(ax, name, runs, colour, over_flops=is_compute)
        ax.set_xlabel("FLOPs" if is_compute else "steps")
        step_axis(ax)
        if is_compute:
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.legend(loc="best")
    return figure


def mean_curve(runs: Sequence[Measured]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps that every run has, but the first, and the mean, the lowest and the highest loss there."""
    shared = set.intersection(*(set(run.curve) for run in runs))
    steps = sorted(step for step in shared if step >= LEFT_OUT * max(shared))
    losses = [[run.curve[step] for run in runs] for step in steps]
    return steps, [sum(of) / len(of) for of in losses], [min(of) for of in losses], [max(of) for of in losses]


def _draw(ax: Axes, name: str, runs: Sequence[Measured], colour: str, *, over_flops: bool) -> None:
    steps, mean, low, high = mean_curve(runs)
    x = [step * runs[0].flops_per_step for step in steps] if over_flops else steps
    ax.plot(x, mean, color=colour, linewidth=1.7, marker="o" if len(x) < 3 else None, label=name)
    if len(runs) > 1:
        ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
