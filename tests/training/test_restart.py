"""A step that runs out of memory is made again with smaller micro-batches, and nothing of the result is another."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from toy_run import launch, losses, train_here, weights

SIZES = {"batch_size": 24, "micro_batch_size": 8}


def told(run_dir: Path) -> list[tuple[int, int]]:
    """(step, rows of a micro-batch from then on) of each warning."""
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [(one["step"], one["micro_batch_size"]) for one in records if one["kind"] == "out_of_memory"]


def assert_same(run_dir: Path, other: Path) -> None:
    assert losses(run_dir) == pytest.approx(losses(other), rel=1e-5)
    mine, others = weights(run_dir), weights(other)
    assert all(torch.allclose(mine[name], others[name], atol=1e-6) for name in others)


@pytest.mark.parametrize(("family", "room"), [("toy", 3), ("toy_recurrent", 2)])
def test_micro_batches_are_halved_until_they_fit(tmp_path: Path, family: str, room: int) -> None:
    train_here(tmp_path / "all", family=family, **SIZES)
    train_here(tmp_path / "small", family=family, **SIZES, room={"rows": room, "from_step": 3})
    assert_same(tmp_path / "small", tmp_path / "all")
    assert told(tmp_path / "small") == [(3, 4), (3, 2)]
    assert "the step is made again" in (tmp_path / "small" / "training.log").read_text()


def test_before_the_first_step_too_and_with_one_row_it_ends(tmp_path: Path) -> None:
    train_here(tmp_path / "all", **SIZES)
    train_here(tmp_path / "small", **SIZES, room={"rows": 5, "from_step": 1})
    assert_same(tmp_path / "small", tmp_path / "all")
    assert [rows for _, rows in told(tmp_path / "small")] == [4]
    train_here(tmp_path / "half", **SIZES | {"micro_batch_size": 4})
    mine, others = weights(tmp_path / "small"), weights(tmp_path / "half")
    assert all(torch.equal(mine[name], others[name]) for name in others)
    with pytest.raises(ValueError, match=r"one micro-batch of .* does not fit on cpu .*no room for") as caught:
        train_here(tmp_path / "none", **SIZES, room={"rows": 0, "from_step": 1})
    assert "activation_checkpointing" in str(caught.value)


def test_the_smaller_size_outlives_a_resume(tmp_path: Path) -> None:
    """Where as large ones are asked for as before: the run goes on as if it had not stopped, and fails no step more."""
    room = {"rows": 4, "from_step": 2}
    train_here(tmp_path / "through", **SIZES, room=room)
    stop_at = (4, 0, signal.SIGTERM)
    assert train_here(tmp_path / "stopped", **SIZES, room=room, script={}, stop_at=stop_at).exit_code == 143
    train_here(tmp_path / "stopped", **SIZES, room=room, resume=True)
    assert told(tmp_path / "stopped") == told(tmp_path / "through") == [(2, 4)]
    assert "4 rows at most, to which they were halved" in (tmp_path / "stopped" / "training.log").read_text()
    mine, others = weights(tmp_path / "stopped"), weights(tmp_path / "through")
    assert all(torch.equal(mine[name], others[name]) for name in others)
    train_here(tmp_path / "stopped", **SIZES | {"micro_batch_size": 6}, room=room, resume=True, steps=7)
    assert told(tmp_path / "stopped") == [(2, 4), (7, 3)]  # a size that was not asked for before is tried


def test_ranks_agree_when_one_of_them_runs_out(tmp_path: Path) -> None:
    """The rank that has room would wait for the other's gradients otherwise, or count its own twice."""
    train_here(tmp_path / "one", **SIZES)
    runs: list[dict[str, Any]] = [
        {**SIZES, "run_dir": tmp_path / "two", "room": {"rows": 3, "from_step": 3, "rank": 1}}
    ]
    launch(2, runs)
    assert_same(tmp_path / "two", tmp_path / "one")
    assert told(tmp_path / "two")[0][0] == 3
