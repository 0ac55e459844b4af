"""`foreloom ...` in the process of the tests: a fresh one takes seconds to import torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from foreloom import cli

PEAK_BYTES = 300 * 2**20
"""What a training here is said to have held."""


def foreloom(arguments: Sequence[str]) -> int:
    """Its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["foreloom", *arguments])
        cli.main()
    code = left.value.code or 0
    assert isinstance(code, int), code
    return code


def run_process(
    command: Sequence[str], log: Path, stop: object, tell: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """In place of `lab.runs.run_process`, whose processes `tests/lab/test_runs.py` tests."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = foreloom(command[command.index("foreloom") + 1 :])
    return {"exit_code": code, "seconds": 1.0, "peak_bytes": PEAK_BYTES}
