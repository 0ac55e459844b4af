"""Whose run folder it is, as long as the process lives, and whether anything can be written there."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from foreloom.checkpoint.locate import model_file_in
from foreloom.distributed.launcher import launch_name

LOCK_NAME = ".run.lock"
_PATIENCE_SECONDS = 60.0
"""For a rank of an earlier start of the same launch to end: on another machine torchrun may not have done with it."""
_OTHER_FOLDER = "Give another by --out, or training.output_dir in the recipe"


def check_folder(run_dir: Path) -> None:
    """Raise ValueError where nothing can be written below `run_dir`; before any work, and leaving no trace."""
    there = next(folder for folder in (run_dir, *run_dir.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise ValueError(f"the run folder {run_dir} cannot be made: {there} is a file. {_OTHER_FOLDER}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"the run folder {run_dir} cannot be written: {there} is read-only for you. {_OTHER_FOLDER}")


def claim(run_dir: Path, *, resume: bool) -> TextIO:
    """Claim `run_dir` for this process; the claim lasts until the returned file is closed or the process dies.

    Raises ValueError where another process holds it, where it holds an earlier run, of another launch, and `resume` is
    false, or where it cannot be written.
    """
    refused = lambda error: ValueError(
        f"the run folder {run_dir} cannot be written ({error.strerror}). {_OTHER_FOLDER}"
    )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / LOCK_NAME).open("a+")
    except OSError as error:
        raise refused(error) from error
    launch, deadline = launch_name(os.environ), time.monotonic() + _PATIENCE_SECONDS
    is_own = lambda: bool(launch) and _claim_in(lock).get("launch") == launch
    while not _lock(lock):
        if not is_own() or time.monotonic() >= deadline:
            holder = _holder(lock)
            lock.close()
            raise ValueError(f"{run_dir} belongs to a run that is still going on{holder}; choose another folder")
        time.sleep(0.1)
    resume |= is_own()
    if not resume and (trace := _earlier_run(run_dir)):
        lock.close()
        raise ValueError(f"{run_dir} holds an earlier run ({trace}); give --resume to go on with it, or another folder")
    if not resume and (model := model_file_in(run_dir)):
        lock.close()
        raise ValueError(
            f"{run_dir} holds a model ({model}), which would be taken for what this run trains; choose another folder"
        )
    claimed = {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z"}
    claimed |= {"launch": launch} if launch else {}
    try:
        os.truncate(lock.fileno(), 0)
        os.write(lock.fileno(), json.dumps(claimed).encode())
    except OSError as error:  # a full disk
        lock.close()
        raise refused(error) from error
    return lock


def _lock(file: TextIO) -> bool:
    """Lock it, if no other process has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: TextIO) -> str:
    values = _claim_in(lock)
    return f" (process {values['pid']} on {values['host']} since {values['since']})" if values else ""


def _claim_in(lock: TextIO) -> dict[str, Any]:
    """What the newest process to claim the folder said of itself; empty where it has not yet."""
    lock.seek(0)
    try:
        values = json.load(lock)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _earlier_run(run_dir: Path) -> str:
    steps = sorted(path.name for path in (run_dir / "checkpoints").glob("step-*"))
    if steps:
        return f"its newest checkpoint is {steps[-1]}"
    metrics = run_dir / "metrics.jsonl"
    return "metrics.jsonl, no checkpoint" if metrics.is_file() and metrics.stat().st_size else ""
