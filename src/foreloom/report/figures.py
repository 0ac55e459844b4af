"""Figures of forecasts and of the curves of a run, and the panels that all figures are made of.

Axes: L history steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foreloom.report.style import BLUE, GRID, INK, MUTED, ORANGE, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND_COVERAGES = (0.5, 0.8)
"""Shares of the central bands shaded around the median; the nearest a model offers are taken."""
PANEL_INCHES = (4.2, 2.4)
TITLE_LENGTH = 42
LOG_FROM = 10
"""Times the lowest value that the highest must be for a logarithmic axis."""
MAX_PANELS = 6
"""Of a table of forecasts."""


@dataclass(frozen=True)
class ForecastPanel:
    """One forecast beside what was known and, where it is known by now, what came. NaN is missing."""

    title: str
    history: np.ndarray
    """(L,)."""
    actual: np.ndarray | None
    """(H,), or None where the future is unknown."""
    levels: Sequence[float]
    """Q quantile levels, ascending."""
    quantiles: np.ndarray
    """(H, Q)."""
    timestamps: np.ndarray | None = None
    """datetime64 (L + H,); steps are counted from the cut without them."""

    def __post_init__(self) -> None:
        horizon, num_levels = self.quantiles.shape
        if num_levels != len(self.levels):
            raise ValueError(f"{self.title}: {len(self.levels)} quantile levels for {num_levels} forecasts a step")
        if self.actual is not None and len(self.actual) != horizon:
            raise ValueError(f"{self.title}: {len(self.actual)} actual values for a horizon of {horizon}")
        if self.timestamps is not None and len(self.timestamps) != len(self.history) + horizon:
            raise ValueError(
                f"{self.title}: {len(self.timestamps)} timestamps for {len(self.history)} steps of history and a "
                f"horizon of {horizon}"
            )


@styled
def forecast_figure(
    panels: Sequence[ForecastPanel], *, history_length: int | None = None, num_columns: int = 2
) -> Figure:
    """A panel a forecast: the end of the history, the median, shaded central bands, and the actual values.

    `history_length` is the steps of history shown, three horizons where not given. Raises ValueError for no panel.
    """
    if not panels:
        raise ValueError("a forecast picture needs at least one panel")
    num_columns = min(len(panels), num_columns)
    num_rows = math.ceil(len(panels) / num_columns)
    figure, axes = panel_grid(num_rows, num_columns)
    handles: dict[str, Any] = {}
    for ax, panel in zip(axes, panels, strict=False):
        handles |= _draw_forecast(ax, panel, history_length or 3 * len(panel.quantiles))
    for ax in axes[len(panels) :]:
        ax.remove()
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles))
    return figure


@styled
def curve_figure(
    title: str,
    steps: Sequence[int],
    values: Sequence[float],
    *,
    smooth: bool = False,
    log: bool = False,
    label: str = "",
    beside: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> Figure:
    """One quantity of a run over its steps, with its smoothed course on top if so wished. NaN leaves a gap.

    `log`: on a logarithmic axis, if the values reach far enough that it has ticks to read them by.
    `beside`: others of the same kind by name, (steps, values) each; `label` is then the name of the first.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    figure, (ax,) = panel_grid(1, 1)
    panel_title(ax, title)
    if smooth:
        ax.plot(steps, values, color=MUTED, linewidth=0.8, alpha=0.55)
    lines = {label: (steps, centred_mean(values) if smooth else values), **(beside or {})}
    colours = (BLUE, ORANGE, INK, MUTED)
    for (name, (x, y)), colour in zip(lines.items(), itertools.cycle(colours)):
        ax.plot(x, y, color=colour, linewidth=1.7, marker="o" if len(x) < 3 else None, label=name)
    if len(lines) > 1:
        ax.legend(loc="best")
    drawn = [value for _, line in lines.values() for value in line if value > 0]
    if log and drawn and max(drawn) >= LOG_FROM * min(drawn):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    step_axis(ax)
    return figure


@styled
def shares_figure(title: str, steps: Sequence[int], parts: Mapping[str, Sequence[float]]) -> Figure:
    """Shares of a whole over the steps, stacked, the first part at the bottom."""
    figure, (ax,) = panel_grid(1, 1)
    panel_title(ax, title)
    values = np.array(list(parts.values()), dtype=np.float64)
    total = values.sum(axis=0)
    share = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    tints = [(colour, alpha) for alpha in (0.8, 0.4) for colour in (BLUE, ORANGE, INK, MUTED)]
    bands = ax.stackplot(steps, 100 * share, linewidth=0)
    for band, (colour, alpha) in zip(bands, itertools.cycle(tints)):
        band.set(facecolor=colour, alpha=alpha)
    ax.set_ylim(0, 100)
    step_axis(ax)
    ax.yaxis.set_major_formatter("{x:.0f} %")
    figure.legend(bands, list(parts), loc="outside lower left", ncols=3)
    return figure


def panels_of(past: Any, forecast: pd.DataFrame) -> list[ForecastPanel]:
    """The first series and targets of a forecast with their history. `past` is the table that was forecast."""
    import pandas as pd

    from foreloom.data.tables.long_table import LongTable, instants
    from foreloom.data.tables.read import TableOptions, rows_of

    *ids, time = forecast.columns[: forecast.columns.get_loc("target_name")]
    targets = tuple(forecast["target_name"].unique())
    options = TableOptions(id_column=tuple(ids), timestamp_column=time, target=targets)
    table = LongTable.read(rows_of(past, "the table", options))
    levels = [float(name) for name in forecast.columns if _is_level(name)]
    shown = [(n, target) for n in range(len(table.keys_N)) for target in targets][:MAX_PANELS]
    length = len(forecast) // (len(table.keys_N) * len(targets))
    panels = []
    for place, (n, target) in enumerate(shown):
        mine, future = slice(table.starts[n], table.starts[n + 1]), forecast.iloc[place * length : (place + 1) * length]
        times = np.concatenate([instants(table.times_T[mine]), instants(pd.DatetimeIndex(future[time]))])
        panels.append(
            ForecastPanel(
                title=f"{table.names_N[n]} · {target}" if len(targets) > 1 else table.names_N[n],
                history=table.numbers(target)[mine],
                actual=None,
                levels=levels,
                quantiles=future[[str(level) for level in levels]].to_numpy(np.float64),
                timestamps=times.astype("datetime64[s]"),
            )
        )
    return panels


def centred_mean(values: Sequence[float]) -> np.ndarray:
    """Means over windows of a 20th of the values, (N,) -> (N,), narrower at the ends so that nothing is delayed."""
    array = np.asarray(values, dtype=np.float64)
    half = len(array) // 40
    sums = np.concatenate([[0.0], np.nancumsum(array)])
    counts = np.concatenate([[0], np.cumsum(~np.isnan(array))])
    i = np.arange(len(array))
    reach = np.minimum(np.minimum(half, i), len(array) - 1 - i)
    low, high = i - reach, i + reach + 1
    num = counts[high] - counts[low]
    return np.divide(sums[high] - sums[low], num, out=np.full(len(array), np.nan), where=num > 0)


def central_bands(levels: Sequence[float]) -> list[tuple[int, int]]:
    """Indices (lower, upper) of the levels that bound each band of `BAND_COVERAGES`, widest first.

    Of the pairs symmetric about the median the nearest in coverage is taken, so fewer bands come back where levels
    are few.
    """
    pairs = {
        levels[upper] - levels[lower]: (lower, upper)
        for lower in range(len(levels))
        for upper in range(lower + 1, len(levels))
        if math.isclose(levels[lower] + levels[upper], 1.0, abs_tol=1e-6)
    }
    nearest = {min(pairs, key=lambda coverage: abs(coverage - wanted)) for wanted in BAND_COVERAGES if pairs}
    return [pairs[coverage] for coverage in sorted(nearest, reverse=True)]


def _draw_forecast(ax: Axes, panel: ForecastPanel, history_length: int) -> dict[str, Any]:
    """Draw one panel; the handles of its legend by label."""
    horizon = len(panel.quantiles)
    shown = min(history_length, len(panel.history))
    if panel.timestamps is None:
        x = np.arange(-shown + 1, horizon + 1)
    else:
        x = np.asarray(panel.timestamps, dtype="datetime64[s]")[-(shown + horizon) :]
    history = panel.history[len(panel.history) - shown :]
    handles: dict[str, Any] = {}
    panel_title(ax, panel.title)
    if shown:
        (handles["history"],) = ax.plot(x[:shown], history, color=INK, linewidth=1.1)
        ax.axvline(x[shown - 1], color=GRID, linewidth=1.0, zorder=0)
    future = x[shown:]
    for alpha, (lower, upper) in zip((0.2, 0.3), central_bands(panel.levels), strict=False):
        percent = round(100 * (panel.levels[upper] - panel.levels[lower]))
        handles[f"{percent} %"] = ax.fill_between(
            future, panel.quantiles[:, lower], panel.quantiles[:, upper], color=BLUE, alpha=alpha, linewidth=0
        )
    middle = min(range(len(panel.levels)), key=lambda i: abs(panel.levels[i] - 0.5))
    label = "median" if panel.levels[middle] == 0.5 else f"quantile {panel.levels[middle]:g}"
    marker = "o" if horizon == 1 else None
    (handles[label],) = ax.plot(future, panel.quantiles[:, middle], color=BLUE, linewidth=1.8, marker=marker)
    if panel.actual is not None:
        # The line of what was observed goes on through the cut.
        (handles["actual"],) = ax.plot(
            x[max(shown - 1, 0) :], [*history[-1:], *panel.actual], color=ORANGE, linewidth=1.3
        )
    if panel.timestamps is None:
        ax.set_xlabel("step")
    else:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=6)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.margins(x=0.01)
    return handles


def panel_grid(num_rows: int, num_columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, in the order read; call it within `style.styled`."""
    from matplotlib.figure import Figure

    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * num_columns, height * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel().tolist()
    for ax in axes:
        plain_ticks(ax)
    return figure, axes


def step_axis(ax: Axes) -> None:
    """Whole numbers below the panel, and what they count."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("step")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    ax.margins(x=0.01)


def plain_ticks(ax: Axes) -> None:
    """Three to five, as numbers one can read aloud."""
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.locator_params(axis="y", nbins=5, min_n_ticks=3)


def panel_title(ax: Axes, text: str, most: int = TITLE_LENGTH) -> None:
    """Names of series are shown as they are: cut short, and a dollar sign is no mathematics."""
    short = text if len(text) <= most else text[: most - 1] + "…"
    ax.set_title(short).set_parse_math(False)


def _is_level(column: str) -> bool:
    return column.replace(".", "", 1).isdigit()
