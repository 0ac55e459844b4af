"""Law: a run killed at any moment, saving included, goes on to the losses and weights of the run that nobody killed.

`python test_chaos.py 100` kills so many runs of all families in turn, alone and on two ranks, and prints a table.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from forked import Rank
from toy_run import FAMILIES, losses, start_rank, weights

SETTINGS = {"dropout": 0.1, "steps": 40, "save_steps": 3, "save_total_limit": 2}
SECONDS = 400
"""In which ranks that lost another must have ended, and any run; and three times as long as the undisturbed run took,
which a busy machine decides."""


@dataclass
class Outcome:
    """Of a run that was killed once."""

    moment: str
    """`saving`, or `training`, which is any other."""
    complaint: str = ""
    """What is not as in the run that nobody killed."""
    seconds_to_end: float = 0.0
    """From the kill until the last of the other ranks has ended."""
    seconds_lost: float = 0.0
    """By which the killed session and the one that went on were longer than the undisturbed run."""


def start(run_dir: Path, settings: Mapping[str, Any], world_size: int) -> list[Rank]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = settings | {"run_dir": run_dir}
    return [start_rank([run], rank=rank, world_size=world_size, port=port) for rank in range(world_size)]


def undisturbed(run_dir: Path, settings: Mapping[str, Any], world_size: int, limit: float = SECONDS) -> float:
    """Train to the end; the seconds it took."""
    began = time.monotonic()
    ranks = start(run_dir, settings, world_size)
    try:
        codes = [rank.wait(limit) for rank in ranks]
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{error}: {[rank.output() for rank in ranks]}") from error
    finally:
        for rank in ranks:
            rank.kill()
    assert not any(codes), [rank.output() for rank in ranks]
    return time.monotonic() - began


def wait_for_the_moment(moment: str, run_dir: Path, ranks: list[Rank], whole: float, dice: random.Random) -> None:
    """Until a save is under way, of whichever checkpoint, or for any part of the time that the whole run took."""
    deadline, is_on = time.monotonic() + dice.uniform(0, whole), False
    while not is_on and time.monotonic() < deadline and not any(rank.poll() is not None for rank in ranks):
        time.sleep(0.001)
    while moment == "saving" and not is_on and not any(rank.poll() is not None for rank in ranks):
        is_on = any((run_dir / "checkpoints").glob(".saving-*"))
        time.sleep(0.0005)
    time.sleep(dice.uniform(0, 0.03) if moment == "saving" else 0)


def kill_once(
    run_dir: Path, settings: Mapping[str, Any], whole_dir: Path, whole: float, world_size: int, dice: random.Random
) -> Outcome:
    """Kill a rank, or all, and go on; `whole_dir` is the run that nobody killed, `whole` the seconds it took."""
    began, outcome = time.monotonic(), Outcome(dice.choice(("training", "saving")))
    limit = SECONDS + 3 * whole
    ranks = start(run_dir, settings, world_size)
    wait_for_the_moment(outcome.moment, run_dir, ranks, whole, dice)
    for rank in dice.choice((ranks, [dice.choice(ranks)])):
        rank.kill()
    killed_at = time.monotonic()
    try:
        for rank in ranks:
            rank.wait(limit)
        outcome.seconds_to_end = time.monotonic() - killed_at
        undisturbed(run_dir, {**settings, "resume": True}, world_size, limit)
    except (subprocess.TimeoutExpired, AssertionError) as error:
        outcome.complaint = f"did not survive: {error}"
        return outcome
    finally:
        for rank in ranks:
            rank.kill()
    outcome.seconds_lost = time.monotonic() - began - whole
    first, second = weights(run_dir), weights(whole_dir)
    if losses(run_dir) != losses(whole_dir) or any(not torch.equal(first[name], second[name]) for name in second):
        outcome.complaint = "other losses or weights"
    return outcome


def chaos(num_kills: int, families: tuple[str, ...], folder: Path, seed: int) -> dict[tuple[str, int], list[Outcome]]:
    """Outcomes by family and number of ranks, which take turns."""
    dice, found, whole = random.Random(seed), defaultdict(list), dict[tuple[str, int], float]()
    for number in range(num_kills):
        family, world_size = families[number % len(families)], 1 + number // len(families) % 2
        settings, case = SETTINGS | {"family": family}, (family, world_size)
        whole_dir, run_dir = folder / f"{family}-{world_size}", folder / "killed"
        if case not in whole:
            whole[case] = undisturbed(whole_dir, settings, world_size)
        outcome = kill_once(run_dir, settings, whole_dir, whole[case], world_size, dice)
        print(number, family, world_size, outcome.moment, outcome.complaint or "exact", flush=True)
        found[case].append(outcome)
        shutil.rmtree(run_dir, ignore_errors=True)
    return found


def table(found: Mapping[tuple[str, int], list[Outcome]]) -> str:
    """In Markdown."""
    lines = ["family | ranks | kills | while saving | survived | exact | longest end of the others | mean seconds lost"]
    lines += [" | ".join(["---"] * 8)]
    everything = [one for outcomes in found.values() for one in outcomes]
    for (family, world_size), its in (*found.items(), (("all", "1, 2"), everything)):
        lost = [one.seconds_lost for one in its if not one.complaint]
        cells = [
            family,
            world_size,
            len(its),
            sum(one.moment == "saving" for one in its),
            sum("survive" not in one.complaint for one in its),
            sum(not one.complaint for one in its),
            f"{max(one.seconds_to_end for one in its):.1f} s",
            f"{sum(lost) / max(len(lost), 1):.1f}",
        ]
        lines.append(" | ".join(map(str, cells)))
    return "\n".join(f"| {line} |" for line in lines)


def test_a_run_that_is_killed_is_the_run_that_was_not(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    for case, outcomes in chaos(4, ("toy_recurrent", "chronos2"), tmp_path, seed).items():
        assert not any(one.complaint for one in outcomes), (seed, case, outcomes)


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print("seed", seed)
    with tempfile.TemporaryDirectory() as everything:
        print(table(chaos(int(sys.argv[1]), FAMILIES, Path(everything), seed)))
