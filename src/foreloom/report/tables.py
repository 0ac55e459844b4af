"""Score tables, in all their forms: for the console, a document, a web page, a program."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from foreloom.files import check_writable, strict_json, write_text
from foreloom.report.html import document, escape

if TYPE_CHECKING:
    import rich.console
    import rich.table

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
MOST_IN_FULL = 1e15
"""Digits of a larger float are not those of what was counted or measured."""
_LATEX_NOTHING = "--"
"""What stands in a row where there is no number."""


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
        return json.dumps(strict_json(whole), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

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
                f'<td class="{classes.get(column.is_better(cell), column.kind)}">{_breaking(cell_text(cell))}</td>'
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


def _breaking(text: str) -> str:
    """HTML that may go on in a new line after the strokes of a name."""
    return escape(text).replace("_", "_<wbr>")


def parse_form(text: str | None) -> Form | None:
    """A form as typed; ValueError for one that there is not."""
    if text is None or text in get_args(Form):
        return cast(Form | None, text)
    raise ValueError(f"--format {text!r}: expected {', '.join(get_args(Form))}.")


def print_or_write(
    table: ScoreTable, form: str | None, out: str | Path | None, read: Iterable[str | Path] = ()
) -> None:
    """Into the file `out`, whole or not at all, or onto the console: as a table to look at where no form is named.

    A file without a named form takes it from its ending (.md, .tex, .csv, .html, .json). ValueError for another
    ending, for a form that there is not, and for a file that takes nothing or is one of those that were `read`.
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
    """A cell for people: a whole number as it is, others with four significant digits up to 1000, in full from there,
    and with four and a power of ten from where a float holds no whole number; nothing for None."""
    match cell:
        case None:
            return ""
        case str():
            return cell
        case int():
            return f"{cell:,}"
        case _ if abs(cell) >= MOST_IN_FULL:
            return f"{cell:.3e}"
        case _ if abs(cell) >= 999.95:  # four digits of it are 1000
            return f"{cell:,.0f}"
        case _:
            return f"{cell:#.4g}" if cell else "0"
