"""The folder `benchmark/` of a run: a JSON file a benchmark, which is the truth, and one table made of them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreloom.evaluation.tiers import SCORES
from foreloom.files import strict_json, write_text
from foreloom.monitoring.record import BenchmarkRecord

FOLDER = "benchmark"
TABLE = "benchmark.csv"


def json_path(run_dir: Path, step: int, tier: str) -> Path:
    """benchmark/step-00000200.json, with -extended for that tier."""
    return run_dir / FOLDER / f"step-{step:08d}{'' if tier == 'lite' else f'-{tier}'}.json"


def write_record(run_dir: Path, record: BenchmarkRecord) -> None:
    """One benchmark as JSON, whole or absent; what is not a number is null."""
    path = json_path(run_dir, record.step, record.tier)
    write_text(path, json.dumps(strict_json(dataclasses.asdict(record)), indent=1, allow_nan=False) + "\n")


def read_records(run_dir: Path) -> list[BenchmarkRecord]:
    """All benchmarks of a run in the order they were made."""
    paths = sorted((run_dir / FOLDER).glob("step-*.json"), key=lambda path: path.stem)
    return [BenchmarkRecord(**_with_nan(json.loads(path.read_text()))) for path in paths]


def drop_after(run_dir: Path, step: int) -> None:
    """Remove what an earlier session scored after `step`: the run that goes on from there scores it anew."""
    for record in read_records(run_dir):
        if record.step > step:
            json_path(run_dir, record.step, record.tier).unlink()


def write_table(run_dir: Path, records: Sequence[BenchmarkRecord], tasks: Sequence[str]) -> None:
    """benchmark/benchmark.csv, a row a benchmark of any tier, whole or absent.

    The columns depend on `tasks`, those of all tiers, only: where a tier lacks a task its cells are empty.
    """
    columns = ["step", "tier", *SCORES, "seconds", "training_share"]
    columns += [f"{task} {name}" for task in tasks for name in ("wql", "mase")]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        of_tasks = {f"{task} {name}": score for task, its in record.tasks.items() for name, score in its.items()}
        writer.writerow(
            {
                "step": record.step,
                "tier": record.tier,
                **record.scores,
                "seconds": round(record.seconds, 3),
                "training_share": round(record.training_share, 4),
                **of_tasks,
            }
        )
    write_text(run_dir / FOLDER / TABLE, text.getvalue())


def _with_nan(record: dict[str, Any]) -> dict[str, Any]:
    """The scores that `strict_json` made null, as numbers again."""
    number = lambda scores: {name: math.nan if score is None else score for name, score in scores.items()}
    record["scores"] = number(record["scores"])
    record["tasks"] = {task: number(its) for task, its in record["tasks"].items()}
    record["previous"] = record["previous"] and number(record["previous"])
    record["best_score"] = math.inf if record["best_score"] is None else record["best_score"]
    return record
