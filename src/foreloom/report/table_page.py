"""A score table as HTML: alone on a page that needs nothing outside it, or as a part of another page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files

from foreloom.report.tables import Cell, ScoreTable, cell_text, is_better


def table_html(table: ScoreTable) -> str:
    """The table element, in the classes of page.css."""
    classes: dict[bool | None, str] = {True: "better", False: "worse"}

    def line(row: Sequence[Cell]) -> str:
        cells = [
            f'<td class="{classes.get(is_better(column, cell), column.kind)}">{html.escape(cell_text(cell))}</td>'
            for column, cell in zip(table.columns, row, strict=True)
        ]
        return f"<tr>{''.join(cells)}</tr>"

    head = "".join(f'<th class="{column.kind}">{html.escape(column.name)}</th>' for column in table.columns)
    body, foot = ("".join(map(line, rows)) for rows in (table.rows, table.summary))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"


def table_page(table: ScoreTable, *, title: str, notes: Sequence[str]) -> str:
    """One self-contained page with a table and the sentences that belong to it."""
    style = files("foreloom.report").joinpath("page.css").read_text(encoding="utf-8")
    sentences = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)} · foreloom</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<div class="brand">foreloom</div>
<h1>{html.escape(title)}</h1>
</header>
<section><div class="card"><div class="scroll">{table_html(table)}</div>{sentences}</div></section>
</main>
</body>
</html>
"""
