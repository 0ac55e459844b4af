"""A score table as LaTeX, in the manner of booktabs."""

from __future__ import annotations

from foreloom.report.tables import ScoreTable, cell_text, is_better

_ESCAPES = str.maketrans(
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
NOTHING = "--"
"""What stands where there is no number."""


def to_latex(table: ScoreTable, *, caption: str, label: str) -> str:
    """A `table` environment for a document that loads booktabs; relative scores below 1 and the summary are bold."""
    alignment = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(escape(column.name) for column in table.columns) + r" \\",
        r"\midrule",
    ]
    for group in (table.rows, table.summary):
        if group and group is table.summary:
            lines.append(r"\midrule")
        for row in group:
            texts = []
            for column, cell in zip(table.columns, row, strict=True):
                text = escape(cell_text(cell))
                is_bold = group is table.summary or is_better(column, cell)
                texts.append(rf"\textbf{{{text}}}" if is_bold and text else text or _blank(group is table.summary))
            lines.append(" & ".join(texts) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text with the characters that mean something to LaTeX spelled out."""
    return text.translate(_ESCAPES)


def _blank(is_summary: bool) -> str:
    return "" if is_summary else NOTHING
