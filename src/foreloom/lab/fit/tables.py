"""Findings as tables and as numbers for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from foreloom.files import strict_json
from foreloom.lab.fit.ablation import Variant
from foreloom.lab.fit.analysis import Findings
from foreloom.lab.fit.comparison import Exponent, Gain
from foreloom.lab.fit.learning_rate import Basin, RateFit
from foreloom.lab.fit.parametric import NAMES, ParametricFit
from foreloom.report.tables import Cell, Column, ScoreTable, print_or_write


def tables_of(found: Findings) -> list[ScoreTable]:
    """Those that the findings fill."""
    tables = [approaches_table(found)] if found.approaches else []
    if found.parametric is not None:
        tables += [constants_table(found), sensitivity_table(found)]
    if found.power:
        tables.append(power_table(found))
    if found.predictions:
        tables.append(prediction_table(found))
    return tables


def approaches_table(found: Findings) -> ScoreTable:
    """Exponents of the best N and D over compute, and the best sizes at a few budgets."""
    highest = float(found.points.C_P.max())
    budgets = [10.0 ** round(math.log10(highest)) * factor for factor in (0.1, 1, 10)]
    names = ["Approach", "a (N ~ C^a)", "95 %", "b (D ~ C^b)", *(f"N, D at {C:.0e}" for C in budgets), "From"]
    rows: list[list[Cell]] = []
    for one in found.approaches:
        sizes = [" ".join(f"{size:.3g}" for size in one.allocation(C)) for C in budgets]
        rows.append([one.name, f"{one.a:.4f}", _span(one.a_interval, 4), f"{one.b:.4f}", *sizes, one.remark])
    return ScoreTable(_texts(names), rows, [], "How the best size grows with compute", found.points.notes)


def constants_table(found: Findings) -> ScoreTable:
    """Of the third approach, five digits or more: two would cost four times the objective."""
    fit = found.parametric
    assert fit is not None
    rows: list[list[Cell]] = []
    for name in (*NAMES, "a"):
        values = [getattr(one, name) for one in found.drawn]
        se = f"{float(np.std(values)):.3g}" if values else ""
        rows.append([name, f"{getattr(fit, name):.7g}", se, _span(found.interval(name), 5)])
    what = f"Huber {fit.delta:g}" if fit.loss == "huber" else "absolute deviations"
    notes = [
        f"Sum of {what} of log residuals: {fit.objective:.9g} over {fit.num_points} points; log A "
        f"{math.log(fit.A):.7g}, log B {math.log(fit.B):.7g}" + (f", log E {math.log(fit.E):.7g}." if fit.E else "."),
        f"{fit.num_hits} of {fit.num_starts} starts ended there, in {fit.seconds:.2f} s; "
        + ("converged." if fit.converged else "NOT converged."),
    ]
    if found.drawn:
        notes.append(f"SE and intervals: {len(found.drawn)} sets of runs drawn with replacement.")
    title = "Approach 3: L = E + A / N^alpha + B / D^beta"
    return ScoreTable(_texts(["Constant", "Value", "SE", "95 %"]), rows, [], title, tuple(notes))


def sensitivity_table(found: Findings) -> ScoreTable:
    """How much hangs on choices."""
    assert found.parametric is not None
    changed = [("as fitted", found.parametric), *((one.change, one.fit) for one in found.sensitivities)]
    rows: list[list[Cell]] = [
        [change, *(f"{getattr(fit, name):.5g}" for name in (*NAMES, "a", "objective"))] for change, fit in changed
    ]
    columns = _texts(["Change", *NAMES, "a", "Objective"])
    return ScoreTable(columns, rows, [], "What approach 3 hangs on")


def power_table(found: Findings) -> ScoreTable:
    """The loss over compute, by what E is taken to be."""
    rows: list[list[Cell]] = []
    for law in found.power:
        is_free = law.E_interval is not None
        kind = "free" if is_free else "assumed"
        rows.append(
            [f"{law.E:.4g}", kind, f"{law.A:.5g}", f"{law.exponent:.5f}", f"{law.rmse:.3g}", _span(law.E_interval, 3)]
        )
    columns = _texts(["E", "E is", "A", "exponent", "RMSE", "E, 95 %"])
    law = found.power[0]
    notes = [f"Of the {law.num_points} runs that no cheaper one reaches. RMSE: of log(L - E)."]
    if law.doubt:
        notes.append(f"{law.doubt}: the row of a free E is no finding.")
    return ScoreTable(columns, rows, [], "Loss over compute: L = E + A C^exponent", tuple(notes))


def prediction_table(found: Findings) -> ScoreTable:
    """What was held out, foretold."""
    rows: list[list[Cell]] = []
    for one in found.predictions:
        inside = {True: "yes", False: "no", None: ""}[one.is_inside]
        rows.append(
            [
                *(one.label, one.law, f"{one.predicted:.4f}", _span(one.interval, 4), f"{one.measured:.4f}"),
                *(f"{one.error:+.4f}", f"{one.error / one.measured:+.2%}", inside, f"{one.times_beyond:.3g}"),
            ]
        )
    names = ["Run", "Law", "Predicted", "95 %", "Measured", "Difference", "Error", "Inside", "Times the compute"]
    note = "Intervals hold a run's own scatter; they hold if the law goes on as it is."
    return ScoreTable(_texts(names), rows, [], "Held out, and predicted from the rest", (note,))


def rates_table(fit: RateFit) -> ScoreTable:
    """A row a size, and the trends."""
    rows: list[list[Cell]] = [
        [
            "" if one.width is None else f"{one.width:g}",
            f"{one.num_parameters:.4g}",
            f"{one.best:.4g}",
            one.estimator,
            "" if one.vertex is None else f"{one.vertex:.4g}",
            f"{one.argmin:.4g}",
            "" if one.r2 is None else f"{one.r2:.3f}",
            f"{len(one.value_P)} + {one.num_dropped}",
            _remark(one),
        ]
        for one in fit.basins
    ]
    names = ["Width", "N", "Best", "by", "Vertex", "Argmin", "R2", "Kept + dropped", "Remark"]
    notes = [
        f"best = {trend.coefficient:.4g} {over}^{trend.exponent:.4f}"
        + (f" ± {trend.exponent_se:.3f}" if trend.exponent_se is not None else "")
        + f" (R2 {trend.r2:.3f}); by the argmin alone {fit.argmin_trends[over].coefficient:.4g} "
        f"{over}^{fit.argmin_trends[over].exponent:.4f}."
        for over, trend in fit.trends.items()
    ]
    return ScoreTable(_texts(names), rows, [], f"Best {fit.swept.replace('_', ' ')} by size", tuple(notes))


def exponents_table(rows: Sequence[Exponent]) -> ScoreTable:
    """Exponents of frontiers, by window and E."""
    cells: list[list[Cell]] = []
    for one in rows:
        is_free = one.law.E_interval is not None
        E = f"free: {one.law.E:.3g}" if is_free else f"{one.law.E:.3g}"
        what = ("not identified" if one.doubt else f"identified, {_span(one.law.E_interval, 3)}") if is_free else ""
        window = f"{one.window[0]:.2g} to {one.window[1]:.2g}"
        exponent = f"{one.law.exponent:.4f}" if not one.doubt else f"({one.law.exponent:.4f})"
        size = (f"{one.law.A:.4g}", str(one.law.num_points))
        cells.append([one.name, window, E, exponent, _span(one.interval, 4), *size, what])
    names = ["Study", "Window, FLOPs", "E", "exponent", "95 %", "A", "Points", "E is"]
    note = (
        "L = E + A C^exponent of strict Pareto frontiers of all rows of all runs, mid-run rows too; intervals: sets of "
        "runs drawn with replacement. In brackets: of a free E that the runs do not hold; no finding."
    )
    return ScoreTable(_texts(names), cells, [], "Exponents by window and E", (note,))


def gain_table(base: str, other: str, gain: Gain) -> ScoreTable:
    """At a few computes."""
    places = sorted({0, len(gain.C_G) // 3, 2 * len(gain.C_G) // 3, len(gain.C_G) - 1})
    rows: list[list[Cell]] = [
        [f"{gain.C_G[i]:.3g}", f"{gain.gain_G[i]:.3g}", _span((float(gain.low_G[i]), float(gain.high_G[i])), 3)]
        for i in places
    ]
    names = [f"Compute of {other}, FLOPs", f"Times that {base} needs", "95 %"]
    note = f"Where both were measured, by their laws with E = {gain.E:g}. Beyond that nothing is known."
    return ScoreTable(_texts(names), rows, [], "Compute-equivalent gain", (note,))


def variants_table(variants: Sequence[Variant], base: str, assumed: str) -> ScoreTable:
    """Variants over seeds."""
    rows: list[list[Cell]] = [
        [
            one.name,
            f"{one.loss.mean:.4f}",
            "" if one.deviation is None else f"{one.deviation:.4f}",
            str(one.loss.num_values),
            ", ".join(one.diverged),
            "" if one.multiplier is None else f"{one.multiplier:.3f}",
            _span(one.multiplier_interval, 3),
        ]
        for one in variants
    ]
    names = ["Variant", "Loss", "SD", "Seeds", "Diverged", f"Times the compute of {base}", "95 %"]
    return ScoreTable(_texts(names), rows, [], "Variants", (assumed,) if assumed else ())


def data_of(found: Findings) -> dict[str, Any]:
    """For `--json`: everything with all digits."""
    return {
        "source": str(found.source),
        "num_points": len(found.points),
        "notes": found.points.notes,
        "doubts": found.doubts,
        "approaches": [
            {"name": one.name, "a": one.a, "b": one.b, "a_interval": one.a_interval, "from": one.remark}
            for one in found.approaches
        ],
        "parametric": found.parametric and _fit_data(found.parametric),
        "intervals": {name: found.interval(name) for name in (*NAMES, "a", "b")} if found.drawn else {},
        "standard_errors": {
            name: float(np.std([getattr(one, name) for one in found.drawn])) for name in (*NAMES, "a", "b")
        }
        if found.drawn
        else {},
        "budgets": [
            {"C": one.C, "N": one.N, "D": one.D, "loss": one.level, "doubt": one.reason} for one in found.parabolas
        ],
        "sensitivity": [{"change": one.change, **_fit_data(one.fit)} for one in found.sensitivities],
        "power_laws": [{**dataclasses.asdict(law), "doubt": law.doubt} for law in found.power],
        "predictions": [
            {**dataclasses.asdict(one), "error": one.error, "is_inside": one.is_inside} for one in found.predictions
        ],
    }


def print_findings(found: Findings, *, as_json: bool) -> None:
    """Tables and doubts, or JSON."""
    if as_json:
        print(json.dumps(strict_json(data_of(found)), indent=1))
        return
    for table in tables_of(found):
        print_or_write(table, None, None)
    for doubt in found.doubts:
        print(f"! {doubt}.")


def _fit_data(fit: ParametricFit) -> dict[str, Any]:
    return {**dataclasses.asdict(fit), "a": fit.a, "b": fit.b, "log_A": math.log(fit.A), "log_B": math.log(fit.B)}


def _remark(basin: Basin) -> str:
    if basin.edge:
        return f"best is the {'lowest' if basin.edge == 'low' else 'highest'} tried: run " + _next(basin)
    return f"{basin.reason + '; ' if basin.reason else ''}to refine: {_next(basin)}" if basin.proposed else basin.reason


def _next(basin: Basin) -> str:
    return ", ".join(f"{value:.3g}" for value in basin.proposed)


def _span(interval: tuple[float, float] | None, digits: int) -> str:
    return "" if interval is None else f"{interval[0]:.{digits}g} to {interval[1]:.{digits}g}"


def _texts(names: list[str]) -> list[Column]:
    """Cells are rounded here, to what each measure bears."""
    return [Column(name, "text") for name in names]
