"""A score table with its title and notes, in the form asked for: for the console, a document, a web page, a program."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from foreloom.files import write_text
from foreloom.report.latex import to_latex
from foreloom.report.table_page import table_page
from foreloom.report.tables import ScoreTable, to_csv, to_markdown

Form = Literal["markdown", "latex", "csv", "html"]


@dataclass(frozen=True)
class TitledTable:
    """A table that can stand alone."""

    title: str
    table: ScoreTable
    notes: tuple[str, ...] = ()
    """Sentences about it: what was left out, what the columns mean."""


def render(titled: TitledTable, form: Form) -> str:
    """The table as text of a form. CSV holds the rows alone, in full precision."""
    writers: dict[str, Callable[[], str]] = {
        "markdown": lambda: _markdown(titled),
        "latex": lambda: to_latex(
            titled.table,
            caption=". ".join((titled.title, *(note.rstrip(".") for note in titled.notes))) + ".",
            label="tab:" + re.sub(r"[^a-z0-9]+", "-", titled.title.lower()).strip("-"),
        ),
        "csv": lambda: to_csv(titled.table),
        "html": lambda: table_page(titled.table, title=titled.title, notes=titled.notes),
    }
    return writers[form]()


def parse_form(text: str | None) -> Form | None:
    """A form as typed; ValueError for one that there is not."""
    if text is None or text in get_args(Form):
        return cast(Form | None, text)
    raise ValueError(f"--format {text!r}: expected {', '.join(get_args(Form))}.")


def print_or_write(titled: TitledTable, form: Form | None, out: str | Path | None) -> None:
    """Into the file `out`, whole or not at all, or onto the console: as a table to look at where no form is named.

    A file without a named form takes it from its ending (.md, .tex, .csv, .html).
    """
    if out is None and form is None:
        _show(titled)
    elif out is None:
        assert form is not None
        print(render(titled, form), end="")
    else:
        write_text(out, render(titled, form or _form_of(Path(out))))
        print(f"wrote {out}")


def _markdown(titled: TitledTable) -> str:
    notes = "".join(f"\n{note}\n" for note in titled.notes)
    return f"### {titled.title}\n\n{to_markdown(titled.table)}{notes}"


def _show(titled: TitledTable) -> None:
    from rich.console import Console

    from foreloom.report.tables import print_whole, to_rich

    console = Console()
    print_whole(console, to_rich(titled.table), titled.title)
    for note in titled.notes:
        console.print(note, highlight=False, soft_wrap=True, markup=False)


def _form_of(path: Path) -> Form:
    endings: dict[str, Form] = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html"}
    if path.suffix not in endings:
        raise ValueError(f"{path}: a table's name ends in {', '.join(endings)}; or name the form with --format.")
    return endings[path.suffix]
