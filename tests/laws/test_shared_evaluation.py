"""The law of evaluation: `foreloom evaluate` under torchrun writes the scores of one process, once."""

import csv
import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foreloom import cli
from forked import Rank

MAIN = Path(cli.__file__).parents[1] / "__main__.py"


@pytest.fixture
def folder(tmp_path, tiny_chronos2, monkeypatch):
    """The working directory: a model, a CSV of two channels, and tasks on the same data."""
    from foreloom.models.chronos2.family import FAMILY

    FAMILY.save(tiny_chronos2, tiny_chronos2.state_dict(), tmp_path / "model")
    rng = np.random.default_rng(0)
    dates = pd.date_range("2024-01-01", periods=150, freq="h")
    table = pd.DataFrame({"date": dates, "a": rng.normal(size=150), "b": rng.normal(size=150)})
    table.drop(70).to_csv(tmp_path / "some.csv", index=False)
    (tmp_path / "tasks.yaml").write_text("tasks:\n  - {name: t, path: some.csv, prediction_length: 6, num_rolls: 5}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def evaluate_on_two_ranks(*arguments):
    """(exit code, stdout, stderr) of each rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    environment = os.environ | address | {"WORLD_SIZE": "2"}
    ranks = [
        Rank(MAIN, ["evaluate", "model", *arguments], environment | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    try:
        codes = [rank.wait(200) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [(code, *rank.output()) for code, rank in zip(codes, ranks, strict=True)]


def scores(path: Path):
    with path.open(newline="") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("what", [["--tasks", "tasks.yaml"], ["--data", "some.csv", "-p", "4,6,90", "-c", "40"]])
def test_two_ranks_write_what_one_writes(folder, what):
    options = [*what, "--batch-size", "7", "--out"]
    cli.app(["evaluate", "model", *options, "one.csv"], standalone_mode=False)
    answers = evaluate_on_two_ranks(*options, "two.csv")
    assert [code for code, *_ in answers] == [0, 0], answers
    assert "wrote two.csv" in answers[0][1]
    assert "warning: " in answers[0][2] and not answers[1][1] + answers[1][2], "rank 0 alone speaks"
    alone, shared = scores(folder / "one.csv"), scores(folder / "two.csv")
    assert len(alone) == len(shared) > 1
    for one, two in zip(alone, shared, strict=True):
        assert one == two, "batches are added in one order, so even the last bit is the same"


def test_no_rank_waits_for_one_that_cannot_write(folder):
    (folder / "file").touch()
    answers = evaluate_on_two_ranks("--data", "some.csv", "-p", "4", "-c", "40", "--out", "file/scores.csv")
    assert [code for code, *_ in answers] == [2, 2], answers
    assert "nothing lies below a file" in answers[0][2] + answers[1][2]
    answers = evaluate_on_two_ranks("--data", "none.csv", "-p", "4", "-c", "40")
    assert [code for code, *_ in answers] == [2, 2], answers
    assert (answers[0][2] + answers[1][2]).count("error: no file none.csv") == 1
