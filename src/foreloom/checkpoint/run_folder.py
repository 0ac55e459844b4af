"""One run folder, one run: a claim on the folder that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

LOCK_NAME = ".run.lock"


def claim(run_dir: Path, *, resume: bool) -> TextIO:
    """Claim `run_dir` for this process; the claim lasts until the returned file is closed or the process dies.

    Raises ValueError where another process holds it, or where it holds an earlier run and `resume` is false.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = (run_dir / LOCK_NAME).open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(lock)
        lock.close()
        raise ValueError(f"{run_dir} belongs to a run that is still going on{holder}; choose another folder") from None
    if not resume and (trace := _earlier_run(run_dir)):
        lock.close()
        raise ValueError(f"{run_dir} holds an earlier run ({trace}); give --resume to go on with it, or another folder")
    lock.truncate(0)
    json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z"}, lock)
    lock.flush()
    return lock


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    try:
        values = json.load(lock)
        return f" (process {values['pid']} on {values['host']} since {values['since']})"
    except (ValueError, KeyError):
        return ""  # it has just claimed the folder and not yet said who it is


def _earlier_run(run_dir: Path) -> str:
    steps = sorted(path.name for path in (run_dir / "checkpoints").glob("step-*"))
    if steps:
        return f"its newest checkpoint is {steps[-1]}"
    metrics = run_dir / "metrics.jsonl"
    return "metrics.jsonl, no checkpoint" if metrics.is_file() and metrics.stat().st_size else ""
