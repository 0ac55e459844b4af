"""A run folder as the report reads it: whatever is there, as plain data."""

from __future__ import annotations

import csv
import glob
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreloom.monitoring.metrics_file import Metrics, read_metrics

PICTURES = (".svg", ".png")
MOST_PICTURES = 8
"""Of the tasks of one evaluation."""


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
    benchmarks: list[dict[str, Any]]
    """Those made during training, `BenchmarkRecord`s as plain data, by step."""
    pictures: list[Path]

    def newest_events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind by step: of those that a resumed run made twice, the newer."""
        by_step = {event["step"]: event for event in self.metrics.events if event["kind"] == kind}
        return [by_step[step] for step in sorted(by_step)]


def read_run_folder(run_dir: str | Path) -> RunFolder:
    """Read a run folder, also of a run that is still going.

    Evaluations are the CSV files in `evaluation/` that have the columns `task` and `model`; pictures are the SVG
    and PNG files in `evaluation/` and beside the recipe (the SVG where a picture is there as both); where an evaluation
    has more than `MOST_PICTURES` of them, its overview stands for them. Raises ValueError where the folder
    holds no metrics.jsonl or a file in it is damaged.
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
    benchmarks = [_read_json(file) for file in sorted(path.glob("benchmark/step-*.json"))]
    found = [file for folder in (path, path / "evaluation") for file in sorted(folder.glob("*")) if _is_best(file)]
    left_out = {file for name in evaluations for file in _repeating(path / "evaluation" / f"{name}.svg")}
    return RunFolder(
        path=path,
        metrics=metrics,
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
        environment=_read_json(environment) if environment.exists() else {},
        manifests=sorted(manifests, key=lambda manifest: manifest.get("step", 0)),
        evaluations={name: rows for name, rows in evaluations.items() if rows},
        benchmarks=sorted(benchmarks, key=lambda record: record["step"]),
        pictures=[file for file in found if file not in left_out],
    )


def _repeating(overview: Path) -> list[Path]:
    """Of an evaluation's overview and the pictures of its tasks, which show the same: those that need not be seen."""
    of_tasks = list(overview.parent.glob(f"{glob.escape(overview.stem)}-*.svg"))
    return of_tasks if len(of_tasks) > MOST_PICTURES else [overview]


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
