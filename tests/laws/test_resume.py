"""Law: a run that was killed and goes on is the run that was never stopped."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from forked import Rank
from toy_run import FAMILIES, TOYS, losses, start_rank, train_here, weights


def kill_after(run: dict, step: int, how: signal.Signals, written: Path | None = None) -> Rank:
    """Train in a subprocess and send it `how` once `step` is logged and `written` is there."""
    process = start_rank([run])
    log = run["run_dir"] / "metrics.jsonl"
    deadline = time.monotonic() + 150
    is_there = lambda: log.is_file() and f'"step", "step": {step},' in log.read_text()
    while not is_there() or (written is not None and not written.is_file()):
        assert process.poll() is None, process.output()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(how)
    process.wait(timeout=150)
    return process


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


MORE = {"muon": {"optimizer": {"name": "muon"}}, "lora": {"adapter": {"rank": 4, "dropout": 0.1}}}
"""What else a run of Chronos-2 may be."""
BEHIND = {"checkpoint": {"background": True}}
WRITTEN_BEHIND = ("toy_recurrent", "chronos2", "chronos_t5", "lora")
"""Families whose checkpoints are written while training goes on; those of the others hold it up."""


@pytest.mark.parametrize("family", [*FAMILIES, *MORE])
def test_killed_at_a_random_step_goes_on_bit_for_bit(tmp_path: Path, family: str) -> None:
    # A step of a toy is over before it is seen that the one before is logged.
    num_steps, last = (60, 40) if family in TOYS else (32, 18)
    settings = {"dropout": 0.1, "steps": num_steps, "save_steps": 7}
    settings |= {"family": "chronos2"} | MORE[family] if family in MORE else {"family": family}
    train_here(tmp_path / "whole", **settings | {"save_steps": num_steps})
    settings |= BEHIND if family in WRITTEN_BEHIND else {}
    step = random.randrange(8, last)
    killed = kill_after(settings | {"run_dir": tmp_path / "killed"}, step, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    result = train_here(tmp_path / "killed", **settings, resume=True)
    assert result.step == num_steps
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole"), f"killed after step {step}"
    assert same_weights(tmp_path / "killed", tmp_path / "whole"), f"killed after step {step}"


def test_sigterm_saves_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = {"dropout": 0.1, "steps": 60} | BEHIND
    train_here(tmp_path / "whole", **settings)
    stopped = kill_after(settings | {"run_dir": tmp_path / "stopped"}, 5, signal.SIGTERM)
    assert stopped.returncode == 143
    assert "Stopped by SIGTERM after step" in (tmp_path / "stopped" / "training.log").read_text()
    saved = sorted(path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir())
    assert len(saved) == 1 and saved[0].startswith("step-")
    assert train_here(tmp_path / "stopped", **settings, resume=True).exit_code == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "stopped", tmp_path / "whole")


def test_killed_while_a_checkpoint_is_written_behind_it(tmp_path: Path) -> None:
    """Training has gone on past the save that never ended; the checkpoint before it is whole."""
    settings = {"dropout": 0.1, "steps": 30, "save_steps": 6} | BEHIND
    train_here(tmp_path / "whole", **settings)
    in_the_making = tmp_path / "killed" / "checkpoints" / ".saving-step-00000012" / "hf" / "model.safetensors"
    kill_after(settings | {"run_dir": tmp_path / "killed", "stuck_save": 12}, 15, signal.SIGKILL, in_the_making)
    left = {path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert left == {"step-00000006", ".saving-step-00000012"}
    train_here(tmp_path / "killed", **settings, resume=True)
    log = (tmp_path / "killed" / "training.log").read_text()
    assert "its save was cut short" in log and re.search("Resumed from .*step-00000006", log)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "killed", tmp_path / "whole")
