"""Law: where one rank fails, all end, soon, and one of them says why.

`python test_ranks_end.py 20` tries every place on either rank and on both, 20 times each: half an hour on two cores.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from failing_rank import PLACES

SCRIPT = Path(__file__).with_name("failing_rank.py")
DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
SETTINGS = [
    "training.steps=4", "training.batch_size=6", "training.device=cpu", "data.context_length=64",
    "data.prediction_length=16", "model.num_layers=1", "model.d_model=32", "model.d_ff=32", "monitoring.log_steps=1",
    "monitoring.trackers=[none]", "validation.steps=2", f"validation.sources=[{{path: {DATA / 'us_births.parquet'}}}]",
    "validation.max_windows=4", "benchmark.steps=2", f"benchmark.tasks={DATA.parent / 'tasks.yaml'}",
]  # fmt: skip
SECONDS = 120


def ranks_fail(phase: str, ranks: str, out: Path) -> list[subprocess.CompletedProcess[str]]:
    """Two ranks of a run that fails; each as it ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(2):
        own = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in own.items()} | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(SCRIPT), phase, ranks, "chronos2-test", *SETTINGS, "--out", str(out)]
        started.append(
            subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    deadline = time.monotonic() + SECONDS
    ended = []
    try:
        for one in started:
            outputs = one.communicate(timeout=max(deadline - time.monotonic(), 1))
            ended.append(subprocess.CompletedProcess(one.args, one.returncode, *outputs))
    finally:
        for one in started:
            one.kill()
    return ended


def complaints(ended: list[subprocess.CompletedProcess[str]]) -> str:
    """What is not as it should be."""
    said = "".join(one.stderr for one in ended)
    codes = [one.returncode for one in ended]
    is_right = codes == [2, 2] and said.count("planted here") == 1 and "Traceback" not in said
    return "" if is_right else f"{codes} {said}"


@pytest.mark.parametrize(("phase", "ranks"), [("recipe", "1"), ("step", "1")])
def test_ranks_end_together_and_one_says_why(tmp_path: Path, phase: str, ranks: str) -> None:
    assert not complaints(ranks_fail(phase, ranks, tmp_path))


if __name__ == "__main__":
    for attempt, phase, ranks in itertools.product(range(int(sys.argv[1])), PLACES, ("0", "1", "0,1")):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = complaints(ranks_fail(phase, ranks, Path(folder) / "run"))
            except subprocess.TimeoutExpired:
                found = f"still running after {SECONDS} s"
        print(attempt, phase, ranks, found or "ended", flush=True)
