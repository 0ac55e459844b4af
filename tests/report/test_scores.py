"""What `foreloom evaluate --tasks` says below its table about data that could not be scored as asked."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foreloom.cli.evaluate import evaluate


def test_labels_that_are_missing_and_seasons_that_are_too_long_are_told_of(tmp_path, capsys):
    steps = np.arange(20.0)
    pq.write_table(pa.table({"target": [steps.tolist()]}), tmp_path / "whole.parquet")
    pq.write_table(pa.table({"target": [np.where(steps < 17, steps, np.nan).tolist()]}), tmp_path / "cut.parquet")
    (tmp_path / "tasks.yaml").write_text(
        "tasks:\n"
        "  - {name: scored, path: whole.parquet, prediction_length: 3}\n"
        "  - {name: unlabelled, path: cut.parquet, prediction_length: 3}\n"
        "  - {name: yearly, path: whole.parquet, prediction_length: 3, season_length: 365}\n"
    )
    evaluate(["naive"], tasks=tmp_path / "tasks.yaml", out=tmp_path / "scores.csv")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: nothing to score, every label is missing: unlabelled.",
        "note: windows whose past is not longer than their task's season_length: 1 on yearly.",
    ]
