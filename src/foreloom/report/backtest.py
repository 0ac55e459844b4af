"""A backtest as a table and as pictures: scores beside Seasonal Naive, errors by step of the horizon, forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foreloom.evaluation.skill import BASELINE
from foreloom.report.evaluation_table import COVERAGES, finite
from foreloom.report.figures import MAX_PANELS, ForecastPanel, curve_figure, forecast_figure
from foreloom.report.tables import Cell, Column, ScoreTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from foreloom.evaluation.backtest import Backtest

RELATIVE = ("WQL", "MASE")


def backtest_table(rows: Sequence[Mapping[str, Any]], title: str, notes: Sequence[str] = ()) -> ScoreTable:
    """A row a forecaster: windows, WQL and MASE, each over Seasonal Naive's, MAE, coverages. `rows` are those of all
    windows together (`Backtest.scores`)."""
    columns = [
        Column("Model", "text"),
        Column("Windows", "count"),
        *(Column(metric, "score", metric) for metric in (*RELATIVE, "MAE")),
        *(Column(f"{metric} relative", "relative", metric) for metric in RELATIVE),
        *(Column(label, "score", name) for name, label in COVERAGES.items()),
    ]
    base = next((row for row in rows if row["model"] == BASELINE), {})
    body: list[list[Cell]] = []
    for row in rows:
        ratios = [_ratio(row, base, metric) for metric in RELATIVE]
        scores = [finite(row[metric]) for metric in (*RELATIVE, "MAE")]
        body.append([row["model"], row["num_windows"], *scores, *ratios, *(finite(row[name]) for name in COVERAGES)])
    return ScoreTable(columns, body, [], title, tuple(notes))


def _ratio(row: Mapping[str, Any], base: Mapping[str, Any], metric: str) -> float | None:
    own, reference = finite(row[metric]), finite(base.get(metric))
    return None if row is base or own is None or not reference else own / reference


def steps_figure(kept: Backtest, metric: str = "MASE") -> Figure:
    """An error of each forecaster by step of the horizon."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for row in kept.scores("step"):
        steps, values = lines.setdefault(row["model"], ([], []))
        steps.append(int(row["name"]))
        values.append(row[metric])
    first, *rest = lines
    steps, values = lines[first]
    return curve_figure(
        f"{metric} by step of the horizon", steps, values, label=first, beside={name: lines[name] for name in rest}
    )


def windows_figure(kept: Backtest, model: str) -> Figure:
    """The newest window of the first series, or of one series its newest windows, by one of the forecasters."""
    newest_first = sorted(range(len(kept.item_S)), key=lambda s: (-kept.window_S[s], kept.item_S[s], kept.target_S[s]))
    panels = []
    for s in newest_first[:MAX_PANELS]:
        item, cut = int(kept.item_S[s]), int(kept.cut_S[s])
        series = kept.task.data.read(item)
        panels.append(
            ForecastPanel(
                title=f"{kept.name_S[s]}, window {kept.window_S[s] + 1}",
                history=series.target_VT[int(kept.target_S[s]), :cut],
                actual=kept.label_SH[s],
                levels=kept.task.asked_levels,
                quantiles=kept.forecast_SHQ[model][s],
            )
        )
    return forecast_figure(panels)
