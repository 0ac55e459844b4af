"""Law: where one rank fails, is killed or hangs, all end, soon, and one of them says why.

`python test_ranks_end.py 20` tries every place on either rank and on both, 20 times each; a second number is the
seconds in which all must have ended, more of them for a machine that does other things.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from failing_rank import PLACES

from forked import Rank

SCRIPT = Path(__file__).with_name("failing_rank.py")
DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
SETTINGS = [
    "training.steps=4", "training.batch_size=6", "training.device=cpu", "data.context_length=64",
    "data.prediction_length=16", "model.num_layers=1", "model.d_model=32", "model.d_ff=32", "monitoring.log_steps=1",
    "monitoring.trackers=[none]", "validation.steps=2", f"validation.sources=[{{path: {DATA / 'us_births.parquet'}}}]",
    "validation.max_windows=4", "benchmark.steps=2", f"benchmark.tasks={DATA.parent / 'tasks.yaml'}",
]  # fmt: skip
SECONDS = 120


def start(phase: str, ranks: str, out: Path, world_size: int = 2) -> list[Rank]:
    """The ranks of a run in which `ranks` fail."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(world_size):
        own = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
        own |= {"MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        environment = os.environ | {name: str(value) for name, value in own.items()}
        started.append(Rank(SCRIPT, [phase, ranks, "chronos2-test", *SETTINGS, "--out", str(out)], environment))
    return started


def complaints(phase: str, ranks: str, out: Path, seconds: float = SECONDS) -> str:
    """What is not as it should be where ranks fail."""
    started = start(phase, ranks, out)
    deadline = time.monotonic() + seconds
    try:
        codes = [one.wait(max(deadline - time.monotonic(), 1)) for one in started]
    except subprocess.TimeoutExpired:
        return f"still running after {seconds} s: {[one.output() for one in started]}"
    finally:
        for one in started:
            one.kill()
    said = "".join(one.output()[1] for one in started)
    if phase == "killed":
        of_ranks = [-signal.SIGKILL if str(rank) in ranks else 2 for rank in range(2)]
        cause = f"rank {ranks} has gone" if ranks in "01" else ""
    else:
        of_ranks, cause = [2, 2], "the disk is full" if phase == "disk" else "planted here"
    errors = "".join(line for line in said.splitlines() if line.startswith("error: "))
    is_right = codes == of_ranks and (not cause or errors.count(cause) == 1) and "Traceback" not in said
    return "" if is_right else f"{codes} {said}"


@pytest.mark.parametrize(("phase", "ranks"), [("recipe", "1"), ("step", "1"), ("killed", "1"), ("disk", "1")])
def test_ranks_end_together_and_one_says_why(tmp_path: Path, phase: str, ranks: str) -> None:
    assert not complaints(phase, ranks, tmp_path)


def test_a_hung_rank_is_named_and_a_second_signal_ends_those_that_wait_for_it(tmp_path: Path) -> None:
    ranks = start("hung", "2", tmp_path, world_size=3)
    said = lambda: "".join(rank.output()[1] for rank in ranks[:2])
    try:
        deadline = time.monotonic() + SECONDS
        while "has waited" not in said():
            assert time.monotonic() < deadline and not any(rank.poll() for rank in ranks), said()
            time.sleep(0.05)
        for _ in range(2):
            for rank in ranks[:2]:
                rank.send_signal(signal.SIGTERM)
            time.sleep(1.2)
        assert [rank.wait(timeout=20) for rank in ranks[:2]] == [143, 143]
        assert "for rank 2 (a word of every rank)" in said() and "Rank 2 stands here" in said()
        assert said().count("has waited") == 1 and ", in fail\n" in said()
    finally:
        for rank in ranks:
            rank.kill()


if __name__ == "__main__":
    places = [place for place in PLACES if place != "hung"]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    took: dict[tuple[str, str], list[float]] = {}
    for attempt, place, failing in itertools.product(range(int(sys.argv[1])), places, ("0", "1", "0,1")):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            found = complaints(place, failing, Path(folder) / "run", seconds)
            ran = time.monotonic() - began
            print(f"{attempt} {place} {failing} {ran:.1f} s {found or 'ended'}", flush=True)
            took.setdefault((place, failing), []).extend([] if found else [ran])
    for (place, failing), all_of in took.items():
        print(f"| {place} | {failing} | {len(all_of)} ended | slowest {max(all_of, default=0):.1f} s |", flush=True)
