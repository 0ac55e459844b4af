"""Per-task results that others published, as rows; where they come from is in the README beside them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

BOARDS = ("chronos", "fev-bench", "gift-eval")
TRAINED_ON = "trained_on"
"""Column that is 1 where a model has seen a task's data in training."""


def published_rows(board: str) -> list[dict[str, Any]]:
    """The rows of a board, each with `model`, `task` and its scores by metric, as floats."""
    assert board in BOARDS
    with Path(__file__).with_name(f"{board}.csv").open(newline="", encoding="utf-8") as file:
        return [
            {name: text if name in ("model", "task") else float(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]
