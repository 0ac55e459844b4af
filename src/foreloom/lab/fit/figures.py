"""The figures of a study: each says one thing, stands beside others on a page and alone in a column of a paper.

Sizes and budgets run from dark to light in cividis, which colour blindness does not change; two of a kind are blue and
orange.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foreloom.lab.fit.ablation import Variant
from foreloom.lab.fit.allocation import Parabola
from foreloom.lab.fit.analysis import Approach, Findings
from foreloom.lab.fit.frontier import INTERVAL, PowerLaw
from foreloom.lab.fit.learning_rate import RateFit
from foreloom.lab.fit.runs import Run
from foreloom.report.figures import PANEL_INCHES, panel_grid, panel_title
from foreloom.report.style import BLUE, INK, MUTED, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS = 9
"""Of a legend: between the first and the last every so many are named."""
NUM_ACROSS = 200
MARKER = 3.2


@styled
def curves_figure(runs: Sequence[Run], frontier: tuple[np.ndarray, np.ndarray], law: PowerLaw | None) -> Figure:
    """The held-out loss of every run over its compute, and the law of the frontier."""
    figure, (ax,) = panel_grid(1, 1)
    panel_title(ax, "Loss over compute, run by run")
    sizes = sorted({run.num_parameters for run in runs})
    shades, named = dict(zip(sizes, _shades(len(sizes)), strict=True)), set()
    for run in runs:
        label = None if run.num_parameters in named else f"N {short(run.num_parameters)}"
        named.add(run.num_parameters)
        ax.plot(run.flops_T, run.loss_T, color=shades[run.num_parameters], linewidth=1.1, label=label)
    x, _ = frontier
    if law is not None:
        over = np.geomspace(x.min(), x.max(), NUM_ACROSS)
        ax.plot(over, law.predict(over), color=ORANGE, linewidth=1.4, linestyle=(0, (4, 2)), label="law")
    _log_axis(ax, "compute 6ND, FLOPs", "loss", log_loss=True)
    lows = [float(np.nanmin(run.loss_T)) for run in runs]
    ax.set_ylim(0.97 * min(lows), min(max(lows) * 1.5, max(float(np.nanmax(run.loss_T)) for run in runs)))
    _legend(figure, ax)
    return figure


@styled
def basins_figure(fit: RateFit) -> Figure:
    """Losses over learning rates, size by size, with the parabola and its lowest point; and the best over size."""
    figure, axes = panel_grid(2 if fit.trends else 1, 1)
    name = fit.swept.replace("_", " ")
    panel_title(axes[0], f"Loss over {name}")
    _draw_basins(axes[0], fit, _shades(len(fit.basins)))
    _log_axis(axes[0], name, "final loss")
    if fit.trends:
        _draw_trend(axes[1], fit, name)
    _legend(figure, axes[0])
    return figure


@styled
def sweeps_figure(fits: Mapping[str, RateFit]) -> Figure:
    """Sweeps of several studies side by side, at one height: does the best stay where it is while size grows?"""
    figure, axes = panel_grid(1, len(fits))
    sizes = sorted({basin.num_parameters for fit in fits.values() for basin in fit.basins})
    shades = dict(zip(sizes, _shades(len(sizes)), strict=True))
    richest = max(fits.values(), key=lambda fit: len(fit.basins))
    for ax, (title, fit) in zip(axes, fits.items(), strict=True):
        _draw_basins(ax, fit, [shades[basin.num_parameters] for basin in fit.basins])
        trend = fit.trends.get("width") or fit.trends.get("num_parameters")
        law = f", best ~ {'width' if trend.over == 'width' else 'N'}^{trend.exponent:.2f}" if trend else ""
        panel_title(ax, title + law)
        _log_axis(ax, fit.swept.replace("_", " "), "final loss")
    lows, highs = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set_ylim(min(lows), max(highs))
    _legend(figure, axes[list(fits.values()).index(richest)])
    return figure


@styled
def parabolas_figure(
    parabolas: Sequence[Parabola], drawn: Sequence[Sequence[Parabola]], approaches: Sequence[Approach]
) -> Figure:
    """The loss over N at each budget, bands of 95 % of the sets of runs drawn; and the best N over compute."""
    figure, (left, right) = panel_grid(2, 1)
    panel_title(left, "Loss over N at equal compute")
    for parabola, colour in zip(parabolas, _shades(len(parabolas)), strict=True):
        used = parabola.weight_P > 0
        left.plot(parabola.N_P[used], parabola.L_P[used], "o", color=colour, markersize=MARKER)
        left.plot(parabola.N_P[~used], parabola.L_P[~used], "x", color=colour, markersize=4)
        if parabola.reason:
            continue
        over = np.geomspace(parabola.N_P.min(), parabola.N_P.max(), NUM_ACROSS)
        left.plot(over, parabola.predict(over), color=colour, linewidth=1.1, label=f"{parabola.C:.1e}")
        others = [one.predict(over) for of in drawn for one in of if math.isclose(one.C, parabola.C, rel_tol=0.05)]
        if len(others) >= 20:
            low, high = np.quantile(others, INTERVAL, axis=0)
            left.fill_between(over, low, high, color=colour, alpha=0.25, linewidth=0)
        left.plot(parabola.N, parabola.level, "v", color=ORANGE, markersize=5)
    losses = np.concatenate([one.L_P for one in parabolas])
    left.set_ylim(0.97 * losses.min(), 1.03 * losses.max())
    _log_axis(left, "N, parameters", "loss")
    panel_title(right, "Best N over compute")
    fine = [one for one in parabolas if not one.reason]
    right.plot([one.C for one in fine], [one.N for one in fine], "v", color=ORANGE, markersize=5, label="vertices")
    over = np.geomspace(min(one.C for one in parabolas), max(one.C for one in parabolas), NUM_ACROSS)
    for approach, colour, dashes in zip(approaches, (MUTED, BLUE, INK), ((0, (1, 1)), "-", (0, (4, 2))), strict=False):
        sizes = [approach.allocation(C)[0] for C in over]
        right.plot(
            over, sizes, color=colour, linestyle=dashes, linewidth=1.2, label=f"{approach.name}: a {approach.a:.3f}"
        )
    _log_axis(right, "compute, FLOPs", "N, parameters", log_loss=True)
    right.legend(loc="upper left", fontsize=8)
    _legend(figure, left, "compute, FLOPs")
    return figure


@styled
def residuals_figure(found: Findings) -> Figure:
    """By how much each run is worse or better than the third approach says, over its compute."""
    fit, points = found.parametric, found.points
    assert fit is not None
    figure, (ax,) = panel_grid(1, 1)
    panel_title(ax, "Residuals of L(N, D)")
    residual = 100 * np.expm1(fit.residuals(points.N_P, points.D_P, points.L_P))
    colours = points.D_P / points.N_P
    ax.axhline(0, color=MUTED, linewidth=0.8)
    from matplotlib.colors import LogNorm

    drawn = ax.scatter(points.C_P, residual, c=colours, cmap=_cividis(), norm=LogNorm(), s=9, linewidths=0)
    bar = figure.colorbar(drawn, ax=ax, pad=0.01)
    bar.set_label("D / N, tokens a parameter", color=MUTED)
    bar.outline.set_visible(False)
    _log_ticks(bar.ax.yaxis)
    _log_axis(ax, "compute, FLOPs", "measured over predicted, %")
    ax.yaxis.set_major_formatter("{x:+.3g}")
    return figure


@styled
def assumed_E_figure(laws: Sequence[PowerLaw], intervals: Sequence[tuple[float, float] | None]) -> Figure:
    """The exponent of the loss over compute, by the E that is assumed."""
    figure, (ax,) = panel_grid(1, 1)
    panel_title(ax, "The exponent hangs on E")
    E = [law.E for law in laws]
    ax.plot(E, [law.exponent for law in laws], "o-", color=BLUE, markersize=MARKER, linewidth=1.4)
    known = [(law.E, of) for law, of in zip(laws, intervals, strict=True) if of is not None]
    if known:
        low, high = zip(*(of for _, of in known), strict=True)
        ax.fill_between([at for at, _ in known], low, high, color=BLUE, alpha=0.2, linewidth=0)
    ax.set_xlabel("E assumed")
    ax.set_ylabel("exponent of L - E over C")
    return figure


@styled
def frontiers_figure(
    names: Sequence[str],
    frontiers: Sequence[tuple[np.ndarray, np.ndarray]],
    laws: Sequence[PowerLaw],
    gain: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> Figure:
    """The frontiers of two architectures with their laws; and how many times the compute the first needs for what the
    second reaches: FLOPs, gain, and the lower and upper end of 95 % of the sets of runs drawn."""
    figure, (left, right) = panel_grid(2, 1)
    panel_title(left, "Best loss over compute")
    for name, (x, loss), law, colour in zip(names, frontiers, laws, (BLUE, ORANGE), strict=True):
        left.plot(x, loss, ".", color=colour, markersize=2.5, alpha=0.6)
        over = np.geomspace(x.min(), x.max(), NUM_ACROSS)
        left.plot(over, law.predict(over), color=colour, linewidth=1.5, label=f"{name}: C^{law.exponent:.3f}")
    _log_axis(left, "compute, FLOPs", "loss", log_loss=True)
    left.legend(loc="upper right")
    C, middle, low, high = gain
    panel_title(right, f"Compute that {names[0]} needs")
    right.axhline(1, color=MUTED, linewidth=0.8)
    right.plot(C, middle, color=ORANGE, linewidth=1.5)
    right.fill_between(C, low, high, color=ORANGE, alpha=0.2, linewidth=0)
    _log_axis(right, f"compute of {names[1]}, FLOPs", "times that compute")
    return figure


@styled
def variants_figure(variants: Sequence[Variant], base: str) -> Figure:
    """How many times the base's compute each change is worth, or its loss where no multiplier is assumed."""
    from matplotlib.figure import Figure

    width, _ = PANEL_INCHES
    has_multiplier = any(one.multiplier is not None for one in variants)
    figure = Figure(figsize=(width, 0.7 + 0.21 * len(variants)), layout="constrained")
    ax = figure.subplots()
    panel_title(ax, f"Compute saved over {base}" if has_multiplier else "Final loss by variant")
    for place, one in enumerate(reversed(variants)):
        value, interval = one.loss.mean, one.loss.interval
        if one.multiplier is not None:
            value, interval = one.multiplier, one.multiplier_interval
        colour = INK if one.name == base else BLUE
        if interval is not None:
            ax.plot(interval, (place, place), color=colour, linewidth=2, alpha=0.5)
        ax.plot(value, place, "o", color=colour, markersize=4)
    ax.set_yticks(range(len(variants)), [f"{one.name} ({one.loss.num_values})" for one in reversed(variants)])
    ax.tick_params(axis="y", labelsize=8)
    ax.grid(axis="x")
    ax.grid(axis="y", visible=False)
    if has_multiplier:
        ax.axvline(1, color=MUTED, linewidth=0.8)
        ax.set_xscale("log")
        _log_ticks(ax.xaxis)
    ax.set_xlabel("times the compute (seeds in brackets)" if has_multiplier else "loss (seeds in brackets)")
    return figure


@styled
def predictions_figure(found: Findings) -> Figure:
    """What was fitted, what was held out, and what was predicted for it."""
    figure, (ax,) = panel_grid(1, 1)
    panel_title(ax, "The held-out rung, predicted")
    ax.plot(found.points.C_P, found.points.L_P, "o", color=MUTED, markersize=MARKER, label="fitted")
    seen = {one.label: one for one in found.predictions}
    ax.plot([one.C for one in seen.values()], [one.measured for one in seen.values()], "o", color=INK, markersize=5,
            markerfacecolor="none", label="held out")  # fmt: skip
    for law, colour, shift in (("L(N, D)", BLUE, 1.04), ("L(C)", ORANGE, 1 / 1.04)):
        own = [one for one in found.predictions if one.law == law]
        if own:
            span = np.array([one.interval or (one.predicted,) * 2 for one in own]).T
            middle = np.array([one.predicted for one in own])
            x, reach = [one.C * shift for one in own], np.abs(span - middle)
            ax.errorbar(x, middle, reach, fmt="d", color=colour, markersize=4, linewidth=1.2, capsize=2, label=law)
    _log_axis(ax, "compute, FLOPs", "final loss", log_loss=True)
    ax.legend(loc="lower left")
    return figure


def _draw_basins(ax: Axes, fit: RateFit, colours: Sequence[Any]) -> None:
    for basin, colour in zip(fit.basins, colours, strict=True):
        size = f"{basin.width:g} wide" if basin.width is not None else f"N {short(basin.num_parameters)}"
        ax.plot(basin.value_P, basin.loss_P, "o", color=colour, markersize=MARKER, label=size)
        if basin.curvature is not None and len(basin.value_P) >= 3:
            log_x = np.log(basin.value_P)
            over = np.linspace(log_x[0], log_x[-1], NUM_ACROSS)
            bent = np.polyval(np.polyfit(log_x - log_x[0], basin.loss_P, 2), over - log_x[0])
            ax.plot(np.exp(over), bent, color=colour, linewidth=1.0)
        at = int(np.argmin(np.abs(np.log(np.array(basin.value_P) / basin.best))))
        ax.plot(basin.best, _at_best(basin.value_P, basin.loss_P, basin.best, at), "v", color=ORANGE, markersize=5)


def _draw_trend(ax: Axes, fit: RateFit, name: str) -> None:
    trend = fit.trends.get("width") or fit.trends["num_parameters"]
    size = "width" if trend.over == "width" else "N, parameters"
    panel_title(ax, f"Best {name} over size")
    sizes = [getattr(basin, trend.over) for basin in fit.basins]
    for estimator, marker in (("vertex", "v"), ("argmin", "s")):
        own = [(x, basin.best) for x, basin in zip(sizes, fit.basins, strict=True) if basin.estimator == estimator]
        if own:
            label = "lowest point" if estimator == "vertex" else "best tried"
            ax.plot(*zip(*own, strict=True), marker, color=ORANGE, markersize=5, linestyle="", label=label)
    over = np.geomspace(min(sizes), max(sizes), NUM_ACROSS)
    ax.plot(over, [trend.at(x) for x in over], color=BLUE, linewidth=1.4, label=f"size^{trend.exponent:.2f}")
    _log_axis(ax, size, name, log_loss=True)
    ax.legend(loc="lower left" if trend.exponent < 0 else "lower right")


def _at_best(values: Sequence[float], losses: Sequence[float], best: float, nearest: int) -> float:
    """The height of the mark: on the parabola where there is one inside of what was tried, else at the nearest."""
    if len(values) < 3 or not values[0] < best < values[-1] or best in values:
        return losses[nearest]
    return float(np.polyval(np.polyfit(np.log(values), losses, 2), math.log(best)))


def _log_axis(ax: Axes, x: str, y: str, *, log_loss: bool = False) -> None:
    ax.set_xscale("log")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.margins(x=0.02)
    _log_ticks(ax.xaxis)
    if log_loss:
        ax.set_yscale("log")
        _log_ticks(ax.yaxis)


def _log_ticks(axis: Any) -> None:
    """Powers of ten; numbers at equal distances where there are hardly two of them; nothing that overlaps."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_view_interval()
    axis.set_minor_locator(NullLocator())
    if high > 100 * low:
        axis.set_major_locator(LogLocator(numticks=6))
        return
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20) if high > 6 * low else MaxNLocator(4))
    if high > 1e9:
        axis.set_major_locator(LogLocator(subs=(1, 3), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value) if value >= 1e5 else f"{value:,g}"))


def _power(value: float) -> str:
    """3 x 10^14 as mathematics."""
    digits, exponent = f"{value:.0e}".split("e")
    return rf"${digits}\times10^{{{int(exponent)}}}$" if digits != "1" else rf"$10^{{{int(exponent)}}}$"


def _legend(figure: Figure, ax: Axes, title: str = "") -> None:
    """Above all panels, three columns; of many the names between the first and the last are thinned."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > MOST_LABELS:
        kept = sorted({round(i) for i in np.linspace(0, len(labels) - 1, MOST_LABELS)})
        handles, labels = [handles[i] for i in kept], [labels[i] for i in kept]
    figure.set_figheight(figure.get_figheight() + 0.16 * (math.ceil(len(labels) / 3) + bool(title)))
    figure.legend(
        handles, labels, loc="outside upper left", ncols=3, title=title or None, fontsize=8, title_fontsize=8,
        alignment="left",
    )  # fmt: skip


def _cividis() -> Any:
    """Without its ends, which are hardly seen on black or on white."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("sizes", colormaps["cividis"](np.linspace(0.12, 0.9, 64)))


def _shades(num: int) -> list[Any]:
    return [_cividis()(place) for place in (np.linspace(0, 1, num) if num > 1 else [0.4])]


def short(value: float) -> str:
    """12.3M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
