r"""Adds an entry to the board of docs/time_to_skill.md and draws it: minutes of training against zero-shot skill.

    foreloom evaluate RUN/checkpoints/step-* \
        --tasks benchmarks/zero_shot.yaml --data-root ../shared/data --out scores.csv
    python benchmarks/time_to_skill.py ENTRY RUN scores.csv     # adds the run's points
    python benchmarks/time_to_skill.py                          # only draws

The points lie in time_to_skill.csv beside this script, so that entries of other machines stay in the picture.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foreloom.evaluation import skill
from foreloom.evaluation.skill import BASELINE
from foreloom.report.figures import panel_grid, panel_title
from foreloom.report.scores import ModelScores, read_scores
from foreloom.report.style import BLUE, INK, MUTED, ORANGE, save_figure, styled

ROOT = Path(__file__).resolve().parents[1]
POINTS = ROOT / "benchmarks" / "time_to_skill.csv"
PICTURE = ROOT / "docs" / "pictures" / "time_to_skill.svg"
METRICS = ("WQL", "MASE")


def points(entry: str, run: Path, scores: Path) -> list[dict[str, Any]]:
    """A row a checkpoint that was scored: its minutes of training, steps, windows, and skill.

    Minutes are those since training began, of the run's log; ValueError where the log has no line of that step.
    """
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = {record["step"]: record for record in records if record["kind"] == "step"}
    models = read_scores(scores).models
    rows = []
    for name in models:
        if name == BASELINE:
            continue
        step = int(name.rpartition("-")[2])
        if step not in logged:
            raise ValueError(f"{run}: its log has no line of step {step}; make save_steps a multiple of log_steps.")
        row = {"entry": entry, "step": step, "windows": logged[step]["num_rows"]}
        row["minutes"] = round(logged[step]["seconds"] / 60, 2)
        for metric in METRICS:
            ratio_T = known_ratios(models, name, metric)
            row[metric] = round(skill.geometric_mean(ratio_T.tolist()), 4)
            row[f"{metric} wins"] = int((ratio_T < 1).sum())
            row[f"{metric} tasks"] = len(ratio_T)
        rows.append(row)
    return sorted(rows, key=lambda row: row["step"])


def known_ratios(models: Mapping[str, ModelScores], name: str, metric: str) -> np.ndarray:
    """A model's scores over Seasonal Naive's, (T,), of the tasks that leave something to compare."""
    errors = {model: {task: own[metric] for task, own in models[model].items()} for model in (name, BASELINE)}
    table = skill.ErrorTable.of(errors, list(models[BASELINE]))
    ratio_T = skill.relative(table, BASELINE).error_TM[:, 0]
    return ratio_T[np.isfinite(ratio_T)]


def read_points() -> list[dict[str, Any]]:
    if not POINTS.exists():
        return []
    with POINTS.open(newline="") as file:
        return list(csv.DictReader(file))


def write_points(rows: list[dict[str, Any]]) -> None:
    with POINTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@styled
def figure(rows: list[dict[str, Any]]):
    """A panel a metric, a curve an entry; 1 is Seasonal Naive."""
    drawn, axes = panel_grid(1, len(METRICS))
    entries = list(dict.fromkeys(row["entry"] for row in rows))
    for ax, metric in zip(axes, METRICS, strict=True):
        panel_title(ax, f"{metric} relative to Seasonal Naive")
        for entry, colour in zip(entries, (BLUE, ORANGE, INK, MUTED), strict=False):
            own = [row for row in rows if row["entry"] == entry]
            minutes, values = ([float(row[name]) for row in own] for name in ("minutes", metric))
            ax.plot(minutes, values, color=colour, linewidth=1.7, marker="o", markersize=3, label=entry)
        ax.axhline(1, color=MUTED, linewidth=0.9, linestyle="--")
        ax.set_xlabel("minutes of training")
        ax.set_xlim(left=0)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return drawn


def main() -> None:
    rows = read_points()
    if len(sys.argv) > 1:
        entry, run, scores = sys.argv[1:]
        rows = [row for row in rows if row["entry"] != entry] + points(entry, Path(run), Path(scores))
        write_points(rows)
    save_figure(figure(rows), PICTURE)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
