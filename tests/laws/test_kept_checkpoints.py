"""Law: the newest, the best and the final checkpoint stay, on all ranks, through a whole run that was stopped once.

It is stopped by a signal to one of them, each of the three in its turn.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

from toy_run import launch

SCORES = {3: 0.9, 6: 0.4, 9: 0.7, 12: 0.4, 15: 0.8, 18: 0.6, 21: 0.5, 24: 0.95, 27: 0.3, 30: 0.99}
"""Steps at which a benchmark ran, so that a checkpoint was saved; the newer of equals counts as better."""
STOPPED_AT = 17
"""One rank is told while this step ends: the session stops after the next, which is due a benchmark that it has no time
for. The session that goes on makes up for it."""

KEPT = {
    3: [3],
    5: [3, 5],
    6: [3, 5, 6],
    9: [6, 9],
    10: [6, 9, 10],
    12: [6, 10, 12],
    15: [6, 12, 15],
    17: [6, 12, 15, 18],  # as the second session finds it
    20: [6, 12, 18, 20],
    21: [6, 12, 20, 21],
    24: [6, 12, 21, 24],
    25: [6, 12, 24, 25],
    27: [12, 25, 27],
    30: [12, 27, 30],
}
"""The newest two and the best two after each save; saves come every 5 steps, where scored, and where stopped (18)."""


def test_a_whole_run_of_saves_on_two_ranks(tmp_path: Path) -> None:
    run = {
        "run_dir": tmp_path, "steps": 30, "save_steps": 5, "save_total_limit": 2, "checkpoint": {"keep_best": 2},
        "script": SCORES, "log_steps": 10,
    }  # fmt: skip
    one_is_told = [
        run | {"run_dir": tmp_path / told.name, "steps": 6, "script": {}, "stop_at": (3, rank, told)}
        for rank, told in ((1, signal.SIGTERM), (0, signal.SIGINT))
    ]
    first = run | {"stop_at": (STOPPED_AT, 1, signal.SIGUSR1)}
    launch(2, [first, run | {"resume": True}, *one_is_told, *(one | {"resume": True} for one in one_is_told)])
    for told in ("SIGTERM", "SIGINT"):
        assert f"Stopped by {told} after step 4" in (tmp_path / told / "training.log").read_text()
        assert (tmp_path / told / "checkpoints" / "final").resolve().name == "step-00000006"
    assert "Stopped by SIGUSR1 after step 18" in (tmp_path / "training.log").read_text()
    histories = []
    for rank in range(2):
        lines = [json.loads(line) for line in (tmp_path / f"kept-{rank}.jsonl").read_text().splitlines()]
        histories.append(dict(lines))
    assert histories[0] == histories[1]
    expected: dict[int, list[int]] = {-1: [], 0: []}
    for step in range(1, 30):
        expected[step] = KEPT.get(step, expected[step - 1])
    assert histories[0] == expected
    checkpoints = tmp_path / "checkpoints"
    assert sorted(int(path.name[-8:]) for path in checkpoints.glob("step-*")) == KEPT[30]
    assert (checkpoints / "final").resolve().name == "step-00000030"
    for step in KEPT[30]:
        manifest = json.loads((checkpoints / f"step-{step:08d}" / "manifest.json").read_text())
        assert manifest["scores"] == {"wql": SCORES[step]} and manifest["final"] == (step == 30)
