"""benchmarks/on_gpu.py: every part runs here with tiny models, and neither a failure nor a hang stops the rest."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foreloom.distributed.network import free_port
from forked import Rank

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import on_gpu

    return on_gpu


def test_the_parts_fit_into_nine_minutes(on_gpu):
    assert sum(part.limit_seconds for part in on_gpu.PARTS) + on_gpu.RESERVE_SECONDS <= 60 * on_gpu.BUDGET_MINUTES
    assert on_gpu.BUDGET_MINUTES <= 9
    assert all(part.least_seconds <= part.limit_seconds for part in on_gpu.PARTS)


CODE = {
    "good": "print('fine')",
    "broken": "import sys; print('out of luck', file=sys.stderr); sys.exit(3)",
    # As torchrun's ranks, what it starts is a session of its own.
    "hanging": "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); "
    "print('pid', child.pid, flush=True); time.sleep(60)",
    "last": "print('still here')",
}


def test_failures_hangs_and_the_budget_are_told_and_stop_nothing(on_gpu, tmp_path):
    parts = [on_gpu.Part(name, 2 if name == "hanging" else 20, least_seconds=1) for name in CODE]
    parts.insert(3, on_gpu.Part("too long", 1000, least_seconds=500))
    results = on_gpu.Results(tmp_path / "results.jsonl")
    command_of = lambda part: [sys.executable, "-c", CODE.get(part.name, "")]
    began = time.monotonic()
    assert not on_gpu.run_parts(parts, command_of, 1.0, results)
    assert time.monotonic() - began < 40
    lines = {line["part"]: line for line in results.lines()}
    assert [(name, line["status"]) for name, line in lines.items()] == [
        ("good", "done"), ("broken", "failed"), ("hanging", "out of time"), ("too long", "not run"), ("last", "done"),
    ]  # fmt: skip
    assert "out of luck" in lines["broken"]["output_end"]
    assert "500 s of the budget" in lines["too long"]["why"]
    child = int(lines["hanging"]["output_end"].split()[1])
    assert not is_running(child), "what a part started outlives it"
    assert "still here" in (tmp_path / "results.log").read_text()
    told = on_gpu.table(results.lines())
    assert "| broken | **failed** |" in told and "| too long | **not run** |" in told


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_part_gets_no_more_than_is_left(on_gpu):
    budget = on_gpu.Budget(1)
    assert budget.seconds_for(on_gpu.Part("short", 20)) == 20
    assert 50 < budget.seconds_for(on_gpu.Part("stretched", 20, longest_seconds=500)) <= 55
    assert on_gpu.Budget(0.2).seconds_for(on_gpu.Part("long", 20, least_seconds=15)) == 0


def test_a_task_whose_baseline_is_0_leaves_nothing_to_compare(on_gpu, tmp_path):
    import gpu_parts

    rows = ["model,task,WQL,MASE", "seasonal-naive,a,0.5,1", "seasonal-naive,b,0,2", "seasonal-naive,c,2,4",
            "ours,a,0.25,1", "ours,b,0.1,1", "ours,c,2,2"]  # fmt: skip
    (tmp_path / "scores.csv").write_text("\n".join(rows) + "\n")
    expected = {"tasks": 3, "WQL_relative": 0.5**0.5, "MASE_relative": 0.25 ** (1 / 3)}
    assert gpu_parts._relative(tmp_path / "scores.csv") == pytest.approx(expected)


PART = f"""
import sys

sys.path.insert(0, {str(BENCHMARKS)!r})
import torch._dynamo

torch._dynamo.config.disable = True  # which --smoke says in the environment, before torch is imported
import gpu_parts

gpu_parts.main()
"""


@pytest.mark.timeout(600)
def test_every_part_runs_and_leaves_finite_figures(on_gpu, tmp_path):
    """The script starts two, one of them by torchrun; the others run in forked processes, which spares imports."""
    out, by_script = tmp_path / "smoke.jsonl", ["card", "chronos2-ddp"]
    command = [sys.executable, str(BENCHMARKS / "on_gpu.py"), "--smoke", "--out", str(out), "--only", *by_script]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    log = out.with_suffix(".log")
    assert ran.returncode == 0, ran.stdout + ran.stderr + (log.read_text()[-5000:] if log.exists() else "")
    ended = {line["part"]: line["status"] for line in read(out) if line["status"] != "figures"}
    assert ended == dict.fromkeys(by_script, "done") and all(f"| {name} | **done**" in ran.stdout for name in by_script)
    for part in on_gpu.PARTS:
        if part.name not in by_script:
            began = begin(part, tmp_path, out)
            assert began.wait(timeout=300) == 0, (part.name, began.output())
    lines = read(out)
    for part in on_gpu.PARTS:
        measured = [line for line in lines if line["part"] == part.name and line["status"] == "figures"]
        assert measured, part.name
        assert all(math.isfinite(value) for line in measured for value in line.values() if isinstance(value, float))
    of_two_ways = {line["part"]: line["group"] for line in lines if line["part"].startswith("chronos2-")
                   and line["status"] == "figures"}  # fmt: skip
    assert all("gloo" in group for group in of_two_ways.values()) and len(of_two_ways) == 4
    assert any(line.get("what", "").startswith("zero-shot on") for line in lines)


def read(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def begin(part, folder: Path, out: Path) -> Rank:
    """As the script starts it, and torchrun its only rank."""
    script = folder / "part.py"
    script.write_text(PART)
    options = ["--smoke", "--results", str(out), "--folder", str(folder), "--until", str(time.time() + 300)]
    port = str(free_port())
    only = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return Rank(script, [part.name, *options], os.environ | (only if part.by_torchrun else {}))
