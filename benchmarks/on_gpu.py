"""What one GPU says of foreloom in under nine minutes: the CUDA tests, then speed, most valuable first.

    python benchmarks/on_gpu.py --out on_gpu.jsonl --data-root data      # one NVIDIA GPU
    python benchmarks/on_gpu.py --smoke                                  # does it still run? a minute on two CPU cores
    python benchmarks/on_gpu.py --only recipe --minutes 5 --out again.jsonl

Each part (gpu_parts.py) is a process of its own with a limit of its own; what it measures is appended to `--out`, a
JSON object a line, as it comes, so a kill loses nothing. Its output goes into a .log beside that. A part that fails or
runs out of time is recorded with the end of its output, and the next one begins; one that no longer fits into
`--minutes` is named as not run. A table of all lines ends the run. Exit code 1: not every part is done.

`--data-root` holds the data sets of zero_shot.yaml, `<root>/m4_hourly/data.parquet` and so on; without it the recipe is
scored on examples/tasks.yaml. Models have random weights but where the recipe is scored: a GPU is as fast with them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESERVE_SECONDS = 5.0
"""Of the budget, for the table and for ending a part."""
TAIL_CHARACTERS = 1500
"""Of a part's output that go into its line where it failed."""


@dataclass(frozen=True)
class Part:
    """A measurement and what it may cost."""

    name: str
    limit_seconds: float
    """At most; the sum of all limits keeps within the nine minutes."""
    least_seconds: float = 10.0
    """With less left it is not begun."""
    longest_seconds: float = 0.0
    """In place of the limit where earlier parts left time over."""
    by_torchrun: bool = False
    """Started by torchrun as the only rank."""


PARTS = (
    Part("card", 30),
    Part("tests", 110, least_seconds=20),
    Part("chronos2-ddp", 55, by_torchrun=True),
    Part("chronos2-ddp-compiled", 55, least_seconds=25, by_torchrun=True),
    Part("time-moe", 45),
    Part("chronos2-fsdp", 30, by_torchrun=True),
    Part("chronos2-fsdp-compiled", 50, least_seconds=25, by_torchrun=True),
    Part("chronos-small", 35),
    Part("forecasts", 30),
    Part("peer", 20),
    Part("recipe", 75, least_seconds=75, longest_seconds=280),
)
"""In order of value. `recipe` wants three minutes of training and gets what the others have left over."""
BUDGET_MINUTES = 9.0
SMOKE_PATIENCE = 10
"""What --smoke multiplies all limits by."""
TORCHRUN = ("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "1")
"""A group of one, on a machine whose name need not resolve."""


class Budget:
    """The minutes of the whole run, from now on."""

    def __init__(self, minutes: float) -> None:
        self._ends = time.monotonic() + 60 * minutes - RESERVE_SECONDS

    def seconds_for(self, part: Part) -> float:
        """What `part` may take; 0 where too little is left to begin it."""
        left = self._ends - time.monotonic()
        return 0.0 if left < part.least_seconds else min(left, max(part.limit_seconds, part.longest_seconds))


class Results:
    """The lines of a run, appended to a file and kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, part: str, status: str, **figures: Any) -> None:
        line = json.dumps({"part": part, "status": status, **figures}, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


def run_part(part: Part, command: Sequence[str], budget: Budget, results: Results) -> None:
    """Start a part with what the budget leaves it, and note how it ended."""
    seconds = budget.seconds_for(part)
    if not seconds:
        results.add(part.name, "not run", why=f"less than {part.least_seconds:.0f} s of the budget were left")
        return
    print(f"{part.name}: at most {seconds:.0f} s", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        timed = [*command, "--until", str(time.time() + seconds)]
        process = subprocess.Popen(timed, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = "failed" if process.wait(timeout=seconds) else "done"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            _end(process)
        output.seek(0)
        said = output.read().decode(errors="replace")
    with results.path.with_suffix(".log").open("a", encoding="utf-8") as log:
        log.write(f"== {part.name}: {status}\n{said}\n")
    took = {"seconds": round(time.monotonic() - began, 1), "limit_seconds": round(seconds, 1)}
    results.add(part.name, status, **took, **({} if status == "done" else {"output_end": said[-TAIL_CHARACTERS:]}))
    print(f"{part.name}: {status} after {took['seconds']} s", flush=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a part and all that it started: torchrun's ranks are sessions of their own."""
    for pid in (*_descendants(process.pid), process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _descendants(pid: int) -> list[int]:
    """Of a process on Linux, by the parents that /proc names."""
    parent_of = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent_of[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has ended since
            continue
    found, newest = list[int](), {pid}
    while newest := {child for child, parent in parent_of.items() if parent in newest}:
        found += newest
    return found


def run_parts(
    parts: Sequence[Part],
    command_of: Callable[[Part], Sequence[str]],
    minutes: float,
    results: Results,
    *,
    at_once: int = 1,
) -> bool:
    """Run them in order, `at_once` at a time. Is every one done?"""
    budget = Budget(minutes)
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda part: run_part(part, command_of(part), budget, results), parts))
    ends = {line["part"]: line["status"] for line in results.lines() if line["status"] != "figures"}
    return all(ends[part.name] == "done" for part in parts)


def command_of(part: Part, options: Sequence[str]) -> list[str]:
    """Python, or torchrun with one rank, on gpu_parts.py."""
    torchrun = ["-m", "torch.distributed.run", *TORCHRUN] if part.by_torchrun else []
    return [sys.executable, *torchrun, str(ROOT / "benchmarks" / "gpu_parts.py"), part.name, *options]


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """All lines as Markdown: what was measured, then how each part ended."""
    rows = ["| part | what | figures |", "| --- | --- | --- |"]
    for line in lines:
        figures = {key: value for key, value in line.items() if key not in ("part", "status", "what", "output_end")}
        told = ", ".join(f"{key} {_short(value)}" for key, value in figures.items())
        rows.append(f"| {line['part']} | {line.get('what', '**' + line['status'] + '**')} | {told} |")
    return "\n".join(rows)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("on_gpu.jsonl"), help="the JSON lines; must not exist yet")
    parser.add_argument("--data-root", type=Path, help="where the data sets of zero_shot.yaml lie")
    parser.add_argument("--minutes", type=float, default=BUDGET_MINUTES, help="of the whole run")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts")
    parser.add_argument("--smoke", action="store_true", help="tiny models on the CPU, two parts at once")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists already: give another --out, or remove it.")
    if arguments.data_root and not arguments.data_root.is_dir():
        parser.error(f"--data-root {arguments.data_root}: there is no such folder.")
    return arguments


def main() -> int:
    arguments = _parse()
    # One machine: its ranks find one another without a network, and imports find this checkout.
    os.environ.update({"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"})
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    if arguments.smoke:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # on a CPU, building kernels takes minutes
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = Results(arguments.out.resolve())
    results.path.touch()
    parts = [part for part in PARTS if not arguments.only or part.name in arguments.only]
    if arguments.smoke:  # the longest first, so that neither core waits for the other; a busy CPU gets more time
        parts = [replace(part, limit_seconds=SMOKE_PATIENCE * part.limit_seconds) for part in reversed(parts)]
        arguments.minutes *= SMOKE_PATIENCE
    with tempfile.TemporaryDirectory() as folder:
        options = ["--results", str(results.path), "--folder", folder, *(["--smoke"] if arguments.smoke else [])]
        if arguments.data_root:
            options += ["--data-root", str(arguments.data_root.resolve())]
        in_time = run_parts(
            parts,
            lambda part: command_of(part, options),
            arguments.minutes,
            results,
            at_once=2 if arguments.smoke else 1,
        )
    print(table(results.lines()))
    return 0 if in_time else 1


if __name__ == "__main__":
    sys.exit(main())
