"""The points of the time-to-skill board: minutes from a run's log, skill from its checkpoints' scores."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def board():
    return runpy.run_path(str(BENCHMARKS / "time_to_skill.py"))


def write_run(folder, steps):
    records = [
        {"kind": "start", "from_step": 0},
        *({"kind": "step", "step": s, "seconds": 0.9 * s, "num_rows": 64 * s} for s in steps),
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "scores.csv").write_text(
        "model,task,WQL,MASE\n"
        "step-00000200,a,0.2,1.0\nstep-00000200,b,0.8,3.0\nstep-00000200,c,5.0,nan\n"
        "step-00000100,a,0.8,4.0\nstep-00000100,b,0.8,4.0\nstep-00000100,c,5.0,nan\n"
        "seasonal-naive,a,0.4,2.0\nseasonal-naive,b,0.4,2.0\nseasonal-naive,c,5.0,nan\n"
    )


def test_a_point_a_checkpoint(board, tmp_path):
    write_run(tmp_path, steps=(100, 200))
    first, second = board["points"]("mine", tmp_path, tmp_path / "scores.csv")
    assert first == {
        "entry": "mine", "step": 100, "windows": 6400, "minutes": 1.5,
        "WQL": pytest.approx(4 ** (1 / 3), abs=1e-4), "WQL wins": 0, "WQL tasks": 3,
        "MASE": 2.0, "MASE wins": 0, "MASE tasks": 2,
    }  # fmt: skip
    assert (second["step"], second["WQL"], second["WQL wins"], second["MASE wins"]) == (200, 1.0, 1, 1)


def test_a_checkpoint_without_minutes_is_refused(board, tmp_path):
    write_run(tmp_path, steps=(100,))
    with pytest.raises(ValueError, match="its log has no line of step 200; make save_steps a multiple of log_steps"):
        board["points"]("mine", tmp_path, tmp_path / "scores.csv")


def test_the_picture_is_that_of_the_points(board, tmp_path):
    """Drawn again from time_to_skill.csv, every entry in both panels."""
    rows = board["read_points"]()
    drawn = board["figure"](rows)
    entries = {row["entry"] for row in rows}
    for ax, metric in zip(drawn.axes, ("WQL", "MASE"), strict=True):
        curves = {line.get_label(): line.get_ydata() for line in ax.lines if line.get_label() in entries}
        assert {name: list(values) for name, values in curves.items()} == {
            name: [float(row[metric]) for row in rows if row["entry"] == name] for name in entries
        }
