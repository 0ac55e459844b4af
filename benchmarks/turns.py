"""Two sides that take turns, so that a busy machine slows both: medians and the median of their ratios."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foreloom import subnormals

Call = Callable[[], Any]
SEED = 0


def parser(description: str | None, *, turns: int, only: Sequence[str] = ()) -> argparse.ArgumentParser:
    """What a benchmark beside a peer can be told."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="does it still run? one turn of small cases")
    made.add_argument("--trained", type=Path, metavar="FOLDER", help="a trained run or model, in place of training one")
    made.add_argument("--turns", type=int, default=turns, help=f"of both sides; {turns} by default")
    made.add_argument("--cpu-time", action="store_true", help="of all threads together, in place of the clock's")
    made.add_argument("--rows", type=int, nargs="+", help="batch sizes in place of the standard ones")
    if only:
        made.add_argument("--only", choices=only, help="one of them")
    return made


class Table:
    """Rows of a Markdown table, printed as they are measured."""

    def __init__(self, arguments: argparse.Namespace, peer: str) -> None:
        self.turns = 1 if arguments.quick else arguments.turns
        self.clock = time.process_time if arguments.cpu_time else time.perf_counter
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {self.turns} interleaved "
              f"turns, {'CPU time' if arguments.cpu_time else 'wall clock'}\n")  # fmt: skip
        print(f"| what | foreloom | {peer} | ratio |\n| --- | ---: | ---: | ---: |", flush=True)

    def compare(
        self,
        name: str,
        pair: Sequence[Call],
        *,
        trains: bool = False,
        tolerance: float | None = None,
        times: int = 1,
    ) -> float:
        """Call both once (where there is a tolerance, they must agree), then in turns, `times` as many as usual, each
        first every other time; print medians and the median ratio. Our median in seconds. `trains`: ours flushes
        subnormal floats, as our trainer does; what is measured from end to end does so itself."""
        ours, theirs = (call() for call in pair)
        if tolerance is not None:
            torch.testing.assert_close(ours.float(), theirs.float(), rtol=tolerance, atol=tolerance)
        taken = []
        flushed = subnormals.flushed if trains else nullcontext

        def ours_takes() -> float:
            with flushed():
                return self._seconds(pair[0])

        for turn in range(times * self.turns):
            # Who goes second finds a warmer or a busier machine, so they change places.
            if turn % 2:
                their_seconds = self._seconds(pair[1])
                taken.append((ours_takes(), their_seconds))
            else:
                taken.append((ours_takes(), self._seconds(pair[1])))
        our_median, their_median = (statistics.median(column) for column in zip(*taken, strict=True))
        ratio = statistics.median(b / a for a, b in taken)
        milliseconds = f"{our_median * 1e3:,.1f} ms | {their_median * 1e3:,.1f} ms"
        print(f"| {name} | {milliseconds} | **{ratio:.2f}×** |", flush=True)
        return our_median

    def _seconds(self, call: Call) -> float:
        """From an idle device to an idle device."""
        wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
        wait()
        start = self.clock()
        call()
        wait()
        return self.clock() - start


def random_walks(num_rows: int, num_steps: int) -> np.ndarray:
    """float32 (rows, steps)."""
    steps = np.random.default_rng(SEED).normal(size=(num_rows, num_steps))
    return steps.cumsum(1).astype(np.float32)


def training_step(model: torch.nn.Module, batch: dict) -> Call:
    """A closure that does forward, backward and update once and returns the loss; on a GPU in bf16."""
    model.train()
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)

    def step() -> float:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step
