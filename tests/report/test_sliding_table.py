"""`evaluate --data`: horizons planned, the table laid out."""

import json
import math

import numpy as np
import pytest

from foreloom.evaluation.sliding import Channel, SlidingWindows
from foreloom.report.score_files import write_rows
from foreloom.report.sliding import SlidingOptions, SlidingTask, plan_tasks, window_cutter
from foreloom.report.sliding_table import sliding_table, table_of


def cut(horizon, context):
    return SlidingWindows((Channel("a", np.zeros(600, np.float32), 1),), context, horizon, "standard")


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


def tasks(*horizons):
    return [SlidingTask(f"d-{horizon}", "d", horizon, cut, is_scaled=True) for horizon in horizons]


def test_contexts_by_horizon_but_never_more_than_the_model_uses():
    windows, notes = plan_tasks(tasks(24, 96, 150), None, 500)
    lengths = {name: one and one.context_length for name, one in windows.items()}
    assert lengths == {"d-24": 96, "d-96": 500, "d-150": None}
    assert notes[0] == "horizon 96: the context is 500 steps, all that the model uses, instead of 512."
    assert notes[1].startswith("horizon 150 was not scored. none of the 1 series is long enough: a context of 500")
    windows, notes = plan_tasks(tasks(96), 64, 500)
    assert (windows["d-96"].context_length, notes) == (64, [])
    with pytest.raises(ValueError, match="context of 501 steps was asked for, but the model uses 500 at most"):
        plan_tasks(tasks(96), 501, 500)
    with pytest.raises(ValueError, match=r"horizon 700 was not scored.*\nhorizon 800 was not scored"):
        plan_tasks(tasks(700, 800), 64, 500)


def test_columns_belong_to_a_csv(tmp_path):
    with pytest.raises(ValueError, match="data.jsonl: channels names columns of a CSV"):
        window_cutter(tmp_path / "data.jsonl", SlidingOptions(channels=("a",)))


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


def test_lengths_beyond_the_model_are_refused_before_anything_is_computed(tiny_time_moe, tmp_path, monkeypatch):
    import foreloom.report.sliding as sliding
    from foreloom.models.time_moe.family import FAMILY

    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path / "model")
    data = tmp_path / "long.jsonl"
    data.write_text(json.dumps({"target": [float(i % 7) for i in range(4400)]}) + "\n")
    monkeypatch.setattr(sliding, "score_windows", lambda *_, **__: pytest.fail("computed"))
    limit = tiny_time_moe.architecture.max_position_embeddings
    context = FAMILY.forecaster(tiny_time_moe).context_length - 1
    options = sliding.SlidingOptions(horizons=(8, limit - 10), context_length=context)
    with pytest.raises(
        ValueError, match=f"{context} and prediction_length {limit - 10} are {context + limit - 10} steps"
    ):
        sliding.evaluate_windows_and_tabulate([tmp_path / "model"], data, options, out=tmp_path / "scores.csv")


def test_raw_values_for_a_model_of_unit_scale_get_a_note(tiny_time_moe, tmp_path, monkeypatch, capsys):
    import foreloom.report.sliding as sliding
    from foreloom.models.time_moe.family import FAMILY

    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path / "model")
    data = tmp_path / "short.jsonl"
    data.write_text(json.dumps({"target": [100.0 + i % 7 for i in range(30)]}) + "\n")

    def said(normalization: str) -> str:
        options = sliding.SlidingOptions(horizons=(4,), context_length=20, normalization=normalization)
        sliding.evaluate_windows_and_tabulate([tmp_path / "model"], data, options, out=tmp_path / "scores.csv")
        return " ".join(capsys.readouterr().out.split())

    assert "note: model expects values of unit scale and was given raw ones" in said("none")
    assert "unit scale" not in said("context")
