"""Score tables, in all their forms: for the console, a document, a web page, a program; and evaluations as tables."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from foreloom.evaluation.skill import BASELINE, geometric_mean
from foreloom.files import check_writable, write_text
from foreloom.report.html import document, escape

if TYPE_CHECKING:
    import rich.console
    import rich.table

METRICS = ("WQL", "MASE")

Cell = str | float | None
"""A text, a number, or nothing to say."""
Form = Literal["markdown", "latex", "csv", "html", "json"]
ENDINGS: Mapping[str, Form] = {
    ".md": "markdown",
    ".tex": "latex",
    ".csv": "csv",
    ".html": "html",
    ".json": "json",
}

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)
_LATEX_NOTHING = "--"
"""What stands in a row where there is no number."""
SLIDING_METRICS = ("MSE", "MAE")


@dataclass(frozen=True)
class Column:
    """What a column holds: a text, a count, the scores of a metric, the baseline's, or the first over the second."""

    name: str
    kind: Literal["text", "count", "score", "baseline", "relative"]
    metric: str = ""

    def is_better(self, cell: Cell) -> bool | None:
        """Does a relative score beat the baseline? None for every other cell."""
        return cell < 1 if self.kind == "relative" and isinstance(cell, float) else None


@dataclass(frozen=True)
class ScoreTable:
    """Scores a task and their summary. Numbers are raw; its forms round them."""

    columns: list[Column]
    rows: list[list[Cell]]
    """A task and model each."""
    summary: list[list[Cell]]
    """Per model: the average of each score, the geometric mean of each relative score, and the tasks each is over."""
    title: str = ""
    notes: tuple[str, ...] = ()
    """Sentences about it: what was left out, what the columns mean."""

    @property
    def is_relative(self) -> bool:
        """Is there a baseline to compare with?"""
        return any(column.kind == "relative" for column in self.columns)

    def render(self, form: Form) -> str:
        """The table as text of a form, with its title and notes; CSV holds the rows alone."""
        forms: dict[Form, Callable[[], str]] = {
            "markdown": self.to_markdown,
            "latex": self.to_latex,
            "csv": self.to_csv,
            "html": self.to_page,
            "json": self.to_json,
        }
        return forms[form]()

    def to_rich(self) -> rich.table.Table:
        """For the console: relative scores green below 1 and red from 1 on."""
        import rich.box
        import rich.table
        from rich.text import Text

        grid = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for column in self.columns:
            # Long names break, so that the columns of numbers stay narrow and 80 characters hold the table.
            is_text = column.kind == "text"
            name = column.name.replace(" ", "\n").replace("-", "-\n")
            grid.add_column(name, justify="left" if is_text else "right", no_wrap=is_text)
        colours = {True: "green", False: "red", None: ""}
        for rows, style in ((self.rows, None), (self.summary, "bold")):
            for row in rows:
                cells = zip(self.columns, row, strict=True)
                texts = [Text(cell_text(cell), style=colours[column.is_better(cell)]) for column, cell in cells]
                grid.add_row(*texts, style=style)
            grid.add_section()
        return grid

    def to_csv(self) -> str:
        """The rows without their summary, numbers in full."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.name for column in self.columns])
        writer.writerows([["" if cell is None else cell for cell in row] for row in self.rows])
        return text.getvalue()

    def to_json(self) -> str:
        """Title, rows, summary and notes, numbers in full; null where there is none."""
        names = [column.name for column in self.columns]
        rows, summary = ([dict(zip(names, row, strict=True)) for row in part] for part in (self.rows, self.summary))
        whole = {"title": self.title, "rows": rows, "summary": summary, "notes": self.notes}
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        """A GitHub table between title and notes; relative scores below 1 and the summary are bold."""
        lines = [f"### {self.title}\n"] if self.title else []
        lines += [
            "| " + " | ".join(column.name for column in self.columns) + " |",
            "|" + "|".join(":---" if column.kind == "text" else "---:" for column in self.columns) + "|",
        ]
        for row in self._texts(lambda text: text.replace("|", "\\|"), "**{}**"):
            lines.append("| " + " | ".join(row) + " |")
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def to_latex(self) -> str:
        """A `table` environment in the manner of booktabs; relative scores below 1 and the summary are bold."""
        tex = lambda text: text.translate(_LATEX)
        caption = ". ".join((self.title, *(note.rstrip(".") for note in self.notes))) + "."
        label = "tab:" + re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(caption)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{''.join('l' if column.kind == 'text' else 'r' for column in self.columns)}}}",
            r"\toprule",
            " & ".join(tex(column.name) for column in self.columns) + r" \\",
            r"\midrule",
        ]
        for number, row in enumerate(self._texts(tex, r"\textbf{{{}}}")):
            is_summary = number >= len(self.rows)
            if number == len(self.rows):
                lines.append(r"\midrule")
            lines.append(" & ".join(text or ("" if is_summary else _LATEX_NOTHING) for text in row) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """The table element alone, in the classes of page.css."""
        classes: dict[bool | None, str] = {True: "better", False: "worse"}

        def line(row: Sequence[Cell]) -> str:
            cells = [
                f'<td class="{classes.get(column.is_better(cell), column.kind)}">{escape(cell_text(cell))}</td>'
                for column, cell in zip(self.columns, row, strict=True)
            ]
            return f"<tr>{''.join(cells)}</tr>"

        head = "".join(f'<th class="{column.kind}">{escape(column.name)}</th>' for column in self.columns)
        body, foot = ("".join(map(line, rows)) for rows in (self.rows, self.summary))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"

    def to_page(self) -> str:
        """A page of its own that needs nothing outside it."""
        sentences = "".join(f'<p class="note">{escape(note)}</p>' for note in self.notes)
        card = f'<div class="card"><div class="scroll">{self.to_html()}</div>{sentences}</div>'
        return document(self.title, "", f"<section>{card}</section>\n")

    def _texts(self, escape: Callable[[str], str], bold: str) -> Iterator[list[str]]:
        """The rows and then the summary as text, what is to be seen at once put in bold."""
        for rows in (self.rows, self.summary):
            for row in rows:
                texts = []
                for column, cell in zip(self.columns, row, strict=True):
                    text = escape(cell_text(cell))
                    is_bold = rows is self.summary or column.is_better(cell)
                    texts.append(bold.format(text) if is_bold and text else text)
                yield texts


def parse_form(text: str | None) -> Form | None:
    """A form as typed; ValueError for one that there is not."""
    if text is None or text in get_args(Form):
        return cast(Form | None, text)
    raise ValueError(f"--format {text!r}: expected {', '.join(get_args(Form))}.")


def print_or_write(
    table: ScoreTable, form: str | None, out: str | Path | None, read: Iterable[str | Path] = ()
) -> None:
    """Into the file `out`, whole or not at all, or onto the console: as a table to look at where no form is named.

    A file without a named form takes it from its ending (.md, .tex, .csv, .html). ValueError for another ending, for a
    form that there is not, and for a file that takes nothing or is one of those that were `read`.
    """
    named = parse_form(form)
    if out is not None:
        ending = Path(out).suffix
        if named is None and ending not in ENDINGS:
            raise ValueError(f"{out}: a table's name ends in {', '.join(ENDINGS)}; or name the form with --format.")
        check_writable(out, "--out", read)
        write_text(out, table.render(named or ENDINGS[ending]))
        print(f"wrote {out}")
    elif named is not None:
        print(table.render(named), end="")
    else:
        from rich.console import Console

        console = Console()
        print_whole(console, table.to_rich(), table.title)
        for note in table.notes:
            console.print(note, highlight=False, soft_wrap=True, markup=False)


def print_whole(console: rich.console.Console, grid: rich.table.Table, title: str) -> None:
    """Print every figure in full: where the console is too narrow, lines run over its edge and no digit is cut off.

    The title stands above and not in the grid, where rich would break it at the width of a narrow table.
    """
    console.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
    unbounded = console.options.update(max_width=10_000)
    console.width = max(console.width, console.measure(grid, options=unbounded).maximum)
    console.print(grid)


def cell_text(cell: Cell) -> str:
    """A cell for people: a whole number as it is, others with four significant digits up to 1000, nothing for None."""
    match cell:
        case None:
            return ""
        case str():
            return cell
        case int():
            return f"{cell:,}"
        case _ if abs(cell) >= 1000:
            return f"{cell:,.0f}"
        case _:
            return f"{cell:#.4g}" if cell else "0"


def score_table(
    rows: Iterable[Mapping[str, Any]], *, metrics: Sequence[str] = METRICS, baseline: str = BASELINE
) -> ScoreTable:
    """Lay out evaluation rows, each a mapping with `task`, `model` and scores by metric name (lower is better).

    Every metric fills a column, and where the baseline is among the models two more: its score, and the model's
    relative to it. Averages and geometric means leave out tasks without a finite score, and the row below them says
    how many tasks each is over. A single model goes unnamed.
    Raises ValueError for a row without task or model, and for a task scored twice by one model.
    """
    scores = _by_model_and_task(rows)
    base = scores.get(baseline, {})
    models = {model: tasks for model, tasks in scores.items() if model != baseline} or scores
    is_relative = bool(base) and baseline not in models

    labels = [Column("Task", "text")]
    if len(models) > 1:
        labels.append(Column("Model", "text"))
    columns: list[Column] = []
    for metric in metrics:
        columns.append(Column(metric, "score", metric))
        if is_relative:
            columns.append(Column(f"{metric} {baseline}", "baseline", metric))
            columns.append(Column(f"{metric} relative", "relative", metric))

    body: list[list[Cell]] = []
    summary: list[list[Cell]] = []
    for model, tasks in models.items():
        cells = [[_cell(column, own, base.get(task, {})) for column in columns] for task, own in tasks.items()]
        averages: list[Cell] = []
        geometric_means: list[Cell] = []
        counts: list[Cell] = []
        for column, values in zip(columns, zip(*cells, strict=True), strict=True):
            averages.append(None if column.kind == "relative" else mean(values))
            geometric_means.append(relative_mean(values) if column.kind == "relative" else None)
            counts.append(_num_numbers(values))
        body += [[*[task, model][: len(labels)], *row] for task, row in zip(tasks, cells, strict=True)]
        summary.append([*["Average", model][: len(labels)], *averages])
        if is_relative:
            summary.append([*["Geometric mean", model][: len(labels)], *geometric_means])
        if any(len(tasks) > 1 for tasks in models.values()):
            summary.append([*["Tasks", model][: len(labels)], *counts])
    return ScoreTable([*labels, *columns], body, summary)


def _by_model_and_task(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for number, row in enumerate(rows, start=1):
        task, model = row.get("task"), row.get("model")
        if not task or not model:
            raise ValueError(f"evaluation row {number}: `task` and `model` must be given, found {dict(row)}")
        tasks = scores.setdefault(str(model), {})
        if str(task) in tasks:
            raise ValueError(f"evaluation row {number}: task {task!r} of model {model!r} is there twice; keep one")
        tasks[str(task)] = {key: value for key, value in row.items() if isinstance(value, (int, float))}
    return scores


def _cell(column: Column, own: Mapping[str, float], base: Mapping[str, float]) -> float | None:
    value, reference = finite(own.get(column.metric)), finite(base.get(column.metric))
    match column.kind:
        case "score":
            return value
        case "baseline":
            return reference
        case _:
            return value / reference if value is not None and reference else None


def finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def mean(values: Iterable[Cell]) -> float | None:
    numbers = [value for value in values if isinstance(value, float)]
    return sum(numbers) / len(numbers) if numbers else None


def _num_numbers(values: Iterable[Cell]) -> int:
    return sum(isinstance(value, float) for value in values)


def relative_mean(values: Iterable[Cell]) -> float | None:
    return finite(geometric_mean([value for value in values if isinstance(value, float)]))


def table_of(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str] | None = None) -> ScoreTable:
    """The layout that belongs to the rows of an evaluation: those of sliding windows state their context.

    `metrics` are the columns of other rows (default: WQL and MASE).
    """
    rows = list(rows)
    if any("context" in row for row in rows):
        return sliding_table(rows)
    return score_table(rows, metrics=metrics or METRICS)


def sliding_table(rows: Iterable[Mapping[str, Any]]) -> ScoreTable:
    """Rows of `evaluation.sliding`, task by task; what could not be scored is a row that says so.

    Relative scores are divided by Seasonal Naive's. Where several tasks were scored, a summary: the average of each
    score, the geometric mean of each relative score, and the number of tasks each is over.
    """
    columns = [
        Column("Task", "text"),
        Column("Model", "text"),
        Column("Context", "count"),
        Column("Windows", "count"),
        *(Column(metric, "score", metric) for metric in SLIDING_METRICS),
        *(Column(f"{metric} relative", "relative", metric) for metric in SLIDING_METRICS),
    ]
    by_task: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_task.setdefault(row["task"], {})[row["model"]] = row
    body: list[list[Cell]] = []
    scores_of: dict[str, list[list[float | None]]] = {}
    for task, models in by_task.items():
        if not any(row["num_windows"] for row in models.values()):
            body.append([task, "not scored", *[None] * (len(columns) - 2)])
            continue
        for model, row in models.items():
            scores = [finite(row[metric]) for metric in SLIDING_METRICS]
            base = [None if model == BASELINE else finite(models[BASELINE][metric]) for metric in SLIDING_METRICS]
            scores += [_ratio(score, reference) for score, reference in zip(scores, base, strict=True)]
            body.append([task, model, int(row["context"]), int(row["num_windows"]), *scores])
            scores_of.setdefault(model, []).append(scores)

    summary: list[list[Cell]] = []
    for model, scored in scores_of.items():
        by_column = list(zip(columns[4:], zip(*scored, strict=True), strict=True))
        means = [relative_mean(values) if one.kind == "relative" else mean(values) for one, values in by_column]
        if len(scored) > 1:
            summary.append(["Mean", model, None, None, *means])
            summary.append(["Tasks", model, None, None, *(_num_numbers(values) or None for _, values in by_column)])
    return ScoreTable(columns, body, summary)


def _ratio(score: float | None, reference: float | None) -> float | None:
    return score / reference if score is not None and reference else None
