"""Score tables: what is beside what, and the means below."""

from __future__ import annotations

import csv
import json
import math

import pytest
from rich.console import Console

from foreloom.report.evaluation_table import score_table, sliding_table, table_of
from foreloom.report.scores import write_rows
from foreloom.report.tables import Column, ScoreTable, cell_text, print_whole

ROWS = [
    {"task": "births", "model": "ours", "WQL": 0.02, "MASE": 0.5, "coverage_80": 0.8},
    {"task": "births", "model": "seasonal-naive", "WQL": 0.04, "MASE": 1.0},
    {"task": "sun|spots", "model": "ours", "WQL": 0.4, "MASE": 3.0},
    {"task": "sun|spots", "model": "seasonal-naive", "WQL": 0.2, "MASE": 1.5},
    {"task": "flat", "model": "ours", "WQL": 0.3, "MASE": math.nan},
    {"task": "flat", "model": "seasonal-naive", "WQL": 0.3, "MASE": math.nan},
]


def test_model_beside_baseline():
    table = score_table(ROWS)
    assert [column.name for column in table.columns] == [
        "Task",
        "WQL",
        "WQL seasonal-naive",
        "WQL relative",
        "MASE",
        "MASE seasonal-naive",
        "MASE relative",
    ]
    assert table.rows[0] == ["births", 0.02, 0.04, 0.5, 0.5, 1.0, 0.5]
    assert table.rows[2] == ["flat", 0.3, 0.3, 1.0, None, None, None]
    average, geometric, num_tasks = table.summary
    assert num_tasks == ["Tasks", 3, 3, 3, 2, 2, 2]
    assert average[:4] == ["Average", pytest.approx(0.24), pytest.approx(0.18), None]
    assert average[4:] == [pytest.approx(1.75), pytest.approx(1.25), None]
    assert geometric == ["Geometric mean", None, None, pytest.approx(1.0), None, None, pytest.approx(1.0)]


def test_coverages_stand_beside_what_is_relative():
    table = table_of([row | {"coverage_50": 0.25, "coverage_40": 0.1} for row in ROWS], ["WQL"])
    names = [column.name for column in table.columns]
    assert names == ["Task", "WQL", "WQL seasonal-naive", "WQL relative", "Coverage 50", "Coverage 80"]
    assert table.rows[0][-2:] == [0.25, 0.8] and table.rows[1][-1] is None
    assert table.summary[0][-2:] == [0.25, 0.8] and table.summary[2][-2:] == [3, 1]


def test_markdown():
    assert score_table(ROWS, metrics=["MASE"]).to_markdown() == (
        "| Task | MASE | MASE seasonal-naive | MASE relative |\n"
        "|:---|---:|---:|---:|\n"
        "| births | 0.5000 | 1.000 | **0.5000** |\n"
        "| sun\\|spots | 3.000 | 1.500 | 2.000 |\n"
        "| flat |  |  |  |\n"
        "| **Average** | **1.750** | **1.250** |  |\n"
        "| **Geometric mean** |  |  | **1.000** |\n"
        "| **Tasks** | **2** | **2** | **2** |\n"
    )


def test_csv_reads_back():
    table = score_table(ROWS)
    header, *rows = csv.reader(table.to_csv().splitlines())
    assert header == [column.name for column in table.columns]
    assert rows[0] == ["births", "0.02", "0.04", "0.5", "0.5", "1.0", "0.5"]
    assert rows[2][4:] == ["", "", ""]


def test_console():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_whole(
        console, score_table(ROWS).to_rich(), "Held-out windows [of six] data sets, a title wider than the table"
    )
    text = console.export_text()
    assert "Held-out windows [of six] data sets, a title wider than the table\n" in text
    assert text.split("births")[1].split()[:3] == ["0.02000", "0.04000", "0.5000"]


def test_no_digit_is_cut_off_where_the_console_is_narrow():
    with open("/dev/null", "w") as nowhere:
        console = Console(width=30, record=True, file=nowhere)
        print_whole(console, score_table(ROWS).to_rich(), "Held-out windows of three tasks")
    text = console.export_text()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "Held-out windows of three tasks\n" in text
    (line,) = (line for line in text.splitlines() if "births" in line)
    assert line.split()[1:4] == ["0.02000", "0.04000", "0.5000"]


def test_several_models_are_named_and_a_lone_baseline_stands_for_itself():
    more = [*ROWS, {"task": "births", "model": "theirs", "WQL": 0.03, "MASE": 0.75}]
    table = score_table(more, metrics=["WQL"])
    assert [column.name for column in table.columns[:2]] == ["Task", "Model"]
    assert table.rows[-1] == ["births", "theirs", 0.03, 0.04, pytest.approx(0.75)]
    assert [row[1] for row in table.summary] == ["ours"] * 3 + ["theirs"] * 3

    alone = score_table([row for row in ROWS if row["model"] == "seasonal-naive"], metrics=["WQL"])
    assert [column.name for column in alone.columns] == ["Task", "WQL"]
    assert alone.summary == [["Average", pytest.approx(0.18)], ["Tasks", 3]]
    assert [row[0] for row in score_table(ROWS[:2]).summary] == ["Average", "Geometric mean"]


def test_rows_that_make_no_table_are_named():
    with pytest.raises(ValueError, match="row 2: `task` and `model`"):
        score_table([ROWS[0], {"task": "x", "WQL": 1.0}])
    with pytest.raises(ValueError, match="row 2: task 'births' of model 'ours' is there twice"):
        score_table([ROWS[0], ROWS[0]])


@pytest.mark.parametrize(("ours", "mean"), [(2.0, 1.0), (0.0, 0.0), (math.nan, 0.5)])
def test_geometric_mean_over_the_tasks_that_both_scored(ours, mean):
    rows = [{"task": "a", "model": "ours", "WQL": 0.5}, {"task": "b", "model": "ours", "WQL": ours}]
    rows += [{"task": task, "model": "seasonal-naive", "WQL": 1.0} for task in "ab"]
    summary = score_table(rows, metrics=["WQL"]).summary
    assert summary[-2] == ["Geometric mean", None, None, pytest.approx(mean)]
    assert summary[-1] == ["Tasks", 1 if math.isnan(ours) else 2, 2, 1 if math.isnan(ours) else 2]
    assert score_table(rows[1::2], metrics=["WQL"]).summary[-1][-1] == (None if math.isnan(ours) else ours)


def test_digits():
    assert [cell_text(value) for value in (0.0, 0.012345, 12.3456, 123456.7)] == ["0", "0.01235", "12.35", "123,457"]
    assert [cell_text(value) for value in (999.94, 999.96, 1000.4)] == ["999.9", "1,000", "1,000"]
    assert [cell_text(value) for value in (1e14, 6.6490359e27)] == ["100,000,000,000,000", "6.649e+27"]


def test_json_says_null_where_there_is_no_number():
    table = ScoreTable([Column("Band", "text"), Column("Coverage", "score")], [["80 %", math.nan]], [])
    assert json.loads(table.to_json(), parse_constant=pytest.fail)["rows"] == [{"Band": "80 %", "Coverage": None}]


def sliding_row(model, horizon, mse, mae, num_windows=10):
    return {
        "model": model,
        "task": f"d-{horizon}",
        "context": 1024 if num_windows else 0,
        "MSE": mse,
        "MAE": mae,
        "num_windows": num_windows,
    }


SLIDING_ROWS = [
    sliding_row("ours", 4, 1.0, 2.0),
    sliding_row("ours", 8, 3.0, 3.0),
    sliding_row("ours", 99, math.nan, math.nan, 0),
    sliding_row("seasonal-naive", 4, 2.0, 4.0),
    sliding_row("seasonal-naive", 8, 2.0, 2.0),
    sliding_row("seasonal-naive", 99, math.nan, math.nan, 0),
]


def test_the_table_has_a_row_a_task_and_model():
    assert sliding_table(SLIDING_ROWS).to_markdown() == (
        "| Task | Model | Context | Windows | MSE | MAE | MSE relative | MAE relative |\n"
        "|:---|:---|---:|---:|---:|---:|---:|---:|\n"
        "| d-4 | ours | 1,024 | 10 | 1.000 | 2.000 | **0.5000** | **0.5000** |\n"
        "| d-4 | seasonal-naive | 1,024 | 10 | 2.000 | 4.000 |  |  |\n"
        "| d-8 | ours | 1,024 | 10 | 3.000 | 3.000 | 1.500 | 1.500 |\n"
        "| d-8 | seasonal-naive | 1,024 | 10 | 2.000 | 2.000 |  |  |\n"
        "| d-99 | not scored |  |  |  |  |  |  |\n"
        "| **Mean** | **ours** |  |  | **2.000** | **2.500** | **0.8660** | **0.8660** |\n"
        "| **Tasks** | **ours** |  |  | **2** | **2** | **2** | **2** |\n"
        "| **Mean** | **seasonal-naive** |  |  | **2.000** | **3.000** |  |  |\n"
        "| **Tasks** | **seasonal-naive** |  |  | **2** | **2** |  |  |\n"
    )
    assert sliding_table([SLIDING_ROWS[0], SLIDING_ROWS[3]]).summary == [], "one task needs no mean"


def test_rows_tell_their_table(tmp_path):
    assert table_of(SLIDING_ROWS).columns[2].name == "Context"
    first = json.loads(sliding_table(SLIDING_ROWS).to_json())["rows"][0]
    assert [type(first[name]) for name in ("Context", "Windows")] == [int, int], "numbers, for a program"
    assert table_of([{"task": "t", "model": "m", "WQL": 1.0, "MASE": 2.0}]).columns[1].name == "WQL"
    write_rows(SLIDING_ROWS, tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[3] == "ours,d-99,0,nan,nan,0"
