"""The table of an evaluation on every window: a row a task and model."""

import math

from foreloom.report.scores import write_rows
from foreloom.report.tables import sliding_table, table_of


def row(model, horizon, mse, mae, num_windows=10):
    return {
        "model": model,
        "task": f"d-{horizon}",
        "context": 1024 if num_windows else 0,
        "MSE": mse,
        "MAE": mae,
        "num_windows": num_windows,
    }


ROWS = [
    row("ours", 4, 1.0, 2.0),
    row("ours", 8, 3.0, 3.0),
    row("ours", 99, math.nan, math.nan, 0),
    row("seasonal-naive", 4, 2.0, 4.0),
    row("seasonal-naive", 8, 2.0, 2.0),
    row("seasonal-naive", 99, math.nan, math.nan, 0),
]


def test_the_table_has_a_row_a_task_and_model():
    assert sliding_table(ROWS).to_markdown() == (
        "| Task | Model | Context | Windows | MSE | MAE | MSE relative | MAE relative |\n"
        "|:---|:---|---:|---:|---:|---:|---:|---:|\n"
        "| d-4 | ours | 1,024 | 10 | 1.000 | 2.000 | **0.5000** | **0.5000** |\n"
        "| d-4 | seasonal-naive | 1,024 | 10 | 2.000 | 4.000 |  |  |\n"
        "| d-8 | ours | 1,024 | 10 | 3.000 | 3.000 | 1.500 | 1.500 |\n"
        "| d-8 | seasonal-naive | 1,024 | 10 | 2.000 | 2.000 |  |  |\n"
        "| d-99 | not scored |  |  |  |  |  |  |\n"
        "| **Mean** | **ours** |  |  | **2.000** | **2.500** | **0.8660** | **0.8660** |\n"
        "| **Mean** | **seasonal-naive** |  |  | **2.000** | **3.000** |  |  |\n"
    )
    assert sliding_table([ROWS[0], ROWS[3]]).summary == [], "one task needs no mean"


def test_rows_tell_their_table(tmp_path):
    assert table_of(ROWS).columns[2].name == "Context"
    assert table_of([{"task": "t", "model": "m", "WQL": 1.0, "MASE": 2.0}]).columns[1].name == "WQL"
    write_rows(ROWS, tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[3] == "ours,d-99,0,nan,nan,0"
