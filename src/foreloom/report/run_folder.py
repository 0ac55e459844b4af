"""A run folder as the report reads it: whatever is there, as plain data."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreloom.monitoring.metrics_file import Metrics, read_metrics

PICTURES = (".svg", ".png")


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind. Parts that are not there (yet) are empty."""

    path: Path
    metrics: Metrics
    recipe: str
    """The resolved recipe, as text."""
    environment: dict[str, Any]
    manifests: list[dict[str, Any]]
    """Of the checkpoints, oldest step first, each with its `folder`."""
    evaluations: dict[str, list[dict[str, Any]]]
    """Name of the file -> its rows with `task`, `model` and scores."""
    pictures: list[Path]


def read_run_folder(run_dir: str | Path, pictures: Sequence[Path] = ()) -> RunFolder:
    """Read a run folder, also of a run that is still going.

    Evaluations are the CSV files in `evaluation/` that have the columns `task` and `model`; pictures are `pictures` and
    the SVG and PNG files in `evaluation/` and beside the recipe (the SVG where a picture is there as both). Raises
    ValueError where the folder holds no metrics.jsonl or a file in it is damaged.
    """
    path = Path(run_dir)
    try:
        metrics = read_metrics(path)
    except FileNotFoundError:
        raise ValueError(f"{path} holds no metrics.jsonl: give the folder of a run that has started") from None
    recipe, environment = path / "recipe.yaml", path / "environment.json"
    manifests = [
        {"folder": str(file.parent.relative_to(path)), **_read_json(file)}
        for file in path.glob("checkpoints/*/manifest.json")
        if not file.parent.is_symlink()  # final points at one of them
    ]
    evaluations = {file.stem: _read_scores(file) for file in sorted(path.glob("evaluation/*.csv"))}
    found = [file for folder in (path, path / "evaluation") for file in sorted(folder.glob("*")) if _is_best(file)]
    overviews = {path / "evaluation" / f"{name}.svg" for name in evaluations}  # they repeat the pictures of the tasks
    return RunFolder(
        path=path,
        metrics=metrics,
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
        environment=_read_json(environment) if environment.exists() else {},
        manifests=sorted(manifests, key=lambda manifest: manifest.get("step", 0)),
        evaluations={name: rows for name, rows in evaluations.items() if rows},
        pictures=[*pictures, *(file for file in found if file not in overviews)],
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); move it away to report on the rest") from error
    return content


def _read_scores(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"task", "model"} <= set(reader.fieldnames or ()):
            return []
        return [{name: _number(name, text) for name, text in row.items()} for row in reader]


def _number(name: str, text: str) -> str | float | None:
    if name in ("task", "model"):
        return text
    try:
        return float(text)
    except ValueError:
        return text or None


def _is_best(path: Path) -> bool:
    is_svg = path.suffix == ".svg"
    return path.suffix in PICTURES and (is_svg or not path.with_suffix(".svg").exists())
