"""`foreloom evaluate` where something takes its scores away: a place that cannot be written, a full disk."""

from __future__ import annotations

import os

import numpy as np
import pytest

from foreloom.cli.evaluate import evaluate
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Series


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_series([Series("a", np.random.default_rng(0).normal(5, 1, (1, 40)))], tmp_path / "a.arrow")
    (tmp_path / "tasks.yaml").write_text("tasks:\n  - {name: a, path: a.arrow, prediction_length: 4}\n")
    return tmp_path / "tasks.yaml"


def test_a_place_that_takes_no_file_is_refused_before_the_work(tasks, tmp_path, monkeypatch):
    def nothing(*_):
        raise AssertionError("models were loaded")

    monkeypatch.setattr("foreloom.evaluation.by_name.forecasters_by_name", nothing)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="--out .*folder.csv is a folder"):
        evaluate(models=["naive"], tasks=tasks, out=tmp_path / "folder.csv")
    with pytest.raises(ValueError, match="--out .*tasks.yaml is a file, and nothing lies below a file"):
        evaluate(models=["naive"], tasks=tasks, out=tasks / "a.csv")
    (tmp_path / "a.csv").write_text("date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n2024-01-04,4\n")
    with pytest.raises(ValueError, match="--out .*a.csv: .*a.csv is read, and nothing is written over it"):
        evaluate(models=["naive"], data=tmp_path / "a.csv", out=tmp_path / "a.csv", horizons="1", context_length=1)
    tasks.write_text(tasks.read_text().replace("a.arrow", "a.csv"))
    with pytest.raises(ValueError, match="--out .*a.csv: .*a.csv is read"):
        evaluate(models=["naive"], tasks=tasks, out=tmp_path / "a.csv")


def test_a_full_disk_does_not_take_the_scores_along(tasks, tmp_path, monkeypatch, capsys):
    def full(rows, path):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr("foreloom.report.scores.write_rows", full)
    with pytest.raises(ValueError, match="--out .*a.csv could not be written .No space left.* The table above is what"):
        evaluate(models=["naive"], tasks=tasks, out=tmp_path / "a.csv")
    assert "WQL" in capsys.readouterr().out


def test_a_backtest_writes_forecasts_scores_and_pictures(tmp_path, monkeypatch, capsys):
    import pandas as pd
    from naive_model import naive_model

    from foreloom import cli, forecast

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forecast, "from_pretrained", lambda *_, **__: naive_model())
    days = pd.date_range("2024-01-01", periods=40)
    pd.DataFrame({"timestamp": days, "target": range(40)}).to_csv("sales.csv", index=False)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["foreloom", "backtest", "m", "sales.csv", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, *capsys.readouterr()

    code, out, _ = call("--horizon", "4", "--windows", "3", "--out", "found.csv", "--plot", "--quantiles", "0.1,0.5")
    assert not code and "seasonal-naive" in out and "wrote found-scores.csv" in out
    assert len(pd.read_csv("found.csv")) == 12 and pd.read_csv("found-scores.csv")["by"].nunique() == 4
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("found.png", "found-steps.png"))
    code, out, err = call("--horizon", "40", "--out", "found.csv")
    assert code == 2 and not out and "sales.csv: the longest of its 1 series has 40 steps" in err
