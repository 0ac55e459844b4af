"""Writes examples/your_own_csv.ipynb from docs/your_own_csv.md, so that guide and notebook never differ.

python examples/notebook.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GUIDE, NOTEBOOK = ROOT / "docs" / "your_own_csv.md", ROOT / "examples" / "your_own_csv.ipynb"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!http)(?:\.\./)?([\w./#-]+)\)")
"""Of the guide; the notebook lies in another folder."""


def notebook(guide: str) -> dict[str, Any]:
    """Code cells are the guide's `python` blocks, and its `sh` blocks behind a `!`; the words between them are text."""
    cells, place = [_cell("code", "%cd -q ..", 0)], 0
    for block in FENCE.finditer(guide):
        kind, code = block.groups()
        cells.append(_cell("markdown", _relinked(guide[place : block.start()]), len(cells)))
        shown = code if kind == "python" else re.sub(r"^(?=\S)", "!", code, flags=re.MULTILINE)
        cells.append(_cell("code", shown, len(cells)))
        place = block.end()
    cells.append(_cell("markdown", _relinked(guide[place:]), len(cells)))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cell(kind: str, text: str, number: int) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.strip().splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _relinked(text: str) -> str:
    place = lambda target: target.removeprefix("examples/") if target.startswith("examples/") else f"../docs/{target}"
    return LINK.sub(lambda link: f"]({place(link[1])})", text)


if __name__ == "__main__":
    NOTEBOOK.write_text(json.dumps(notebook(GUIDE.read_text(encoding="utf-8")), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {NOTEBOOK.relative_to(ROOT)}")
