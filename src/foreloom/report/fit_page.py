"""What a fit found, as a table and as a page: every contender beside zero-shot, the verdict, forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foreloom.evaluation.skill import BASELINE
from foreloom.files import write_text
from foreloom.report.backtest import steps_figure, windows_figure
from foreloom.report.evaluation_table import finite
from foreloom.report.html import document, escape, pictures
from foreloom.report.style import figure_svg
from foreloom.report.tables import Cell, Column, ScoreTable

if TYPE_CHECKING:
    from foreloom.tuning.fit import Fit
    from foreloom.tuning.verdict import Ratio

PAGE_NAME = "report.html"
NOTE = (
    "Errors over those of zero-shot, with the 90 % interval of a bootstrap over windows; below 1 is better. Selection: "
    "the windows that candidates are chosen by; last: the newest windows, which have the last word. No candidate was "
    "trained on either."
)


def fit_table(found: Fit) -> ScoreTable:
    """A row a contender."""
    columns = [
        Column("Contender", "text"),
        Column("Selection", "relative", "SQL"),
        Column("Interval", "text"),
        Column("Last", "relative", "SQL"),
        Column("Interval of last", "text"),
        *(Column(metric, "score", metric) for metric in ("WQL", "MASE")),
        Column("Coverage 80", "score", "coverage_80"),
    ]
    rows: list[list[Cell]] = []
    for one in found.contenders:
        name = f"{one.name} (kept)" if one.name == (found.chosen or "zero-shot") else one.name
        scores = [finite(one.scores.get(metric)) for metric in ("WQL", "MASE", "coverage_80")]
        ratios = [cell for ratio in (one.selection, one.verdict) for cell in (finite(ratio.estimate), _interval(ratio))]
        rows.append([name, *ratios, *scores])
    return ScoreTable(columns, rows, [], found.sentence, (NOTE, *(f"note: {note}" for note in found.notes)))


def _interval(ratio: Ratio) -> str:
    return "" if finite(ratio.lower) is None else f"{ratio.lower:.3f} to {ratio.upper:.3f}"


def write_fit_page(found: Fit) -> Path:
    """`report.html` in the folder of the fit: verdict, table, forecasts of the last windows, how to do it again."""
    table = fit_table(found)
    shown = next(name for name in reversed(list(found.kept.forecast_SHQ)) if name != BASELINE)
    figures = {
        f"the last windows, by {shown}": windows_figure(found.kept, shown),
        "errors by step of the horizon": steps_figure(found.kept),
    }
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    sections = {
        "Contenders": f'<div class="card"><div class="scroll">{table.to_html()}</div>{notes}</div>',
        "Last windows": pictures((figure_svg(figure).encode(), ".svg", alt) for alt, figure in figures.items()),
        "How to reproduce": _reproduce(found),
    }
    body = "".join(f"<section><h2>{title}</h2>{content}</section>\n" for title, content in sections.items() if content)
    path = found.folder / PAGE_NAME
    write_text(path, document(found.folder.name, f'<p class="muted">{escape(found.sentence)}</p>\n', body))
    return path


def _reproduce(found: Fit) -> str:
    if found.chosen is not None and found.recipe is None:
        words = (
            "Its weights are those of the model as it was; lookbacks in its config.json says over how many pasts a "
            "forecast is the mean."
        )
        return f'<div class="card"><p class="note">{words}</p></div>'
    if found.recipe is None:
        return ""
    command = f"foreloom train {found.recipe} --out again"
    recipe = escape(found.recipe.read_text(encoding="utf-8"))
    details = f'<details class="card"><summary>its recipe.yaml</summary><pre>{recipe}</pre></details>'
    words = (
        "Where the contender is called 50%, its weights are halfway from the model as it was to those that come out."
    )
    return f'<div class="card"><pre>{escape(command)}</pre><p class="note">{words}</p></div>{details}'
