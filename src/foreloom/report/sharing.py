"""The ranks that share an evaluation: who is who, how sums travel, and who speaks (rank 0)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

if TYPE_CHECKING:
    from foreloom.distributed.process import Process


@dataclass(frozen=True)
class Sharing:
    """This process's part. Alone, all of it."""

    process: Process
    console: Console
    """Silent but on rank 0."""

    @property
    def rank(self) -> int:
        return self.process.rank

    @property
    def world_size(self) -> int:
        return self.process.world_size

    def reduce(self, vector: np.ndarray) -> np.ndarray:
        """The sum over ranks."""
        import torch

        from foreloom.distributed.reduce import sum_over_ranks

        return sum_over_ranks(torch.from_numpy(vector), self.process).numpy()

    def on_rank_zero(self, act: Callable[[], None]) -> None:
        """`act` once; where it fails, every rank raises what it raised."""
        from foreloom.distributed.reduce import from_rank_zero

        from_rank_zero(act, self.process)

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[str, int, int], None]]:
        """A bar a task, `progress(task, done, total)`; nothing where rank 0's console is no terminal."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        is_shown = self.process.is_main and self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not is_shown, transient=True) as bars:
            of_task: dict[str, Any] = {}

            def advance(task: str, done: int, total: int) -> None:
                if task not in of_task:
                    of_task[task] = bars.add_task(f"{label} on {task}", total=total)
                bars.update(of_task[task], completed=done)

            yield advance


@contextmanager
def shared_by_ranks() -> Iterator[Sharing]:
    """Meet the other ranks that torchrun, SLURM or MPI started, if any, and part from them at the end.

    They exchange sums by way of the host only, so whatever device the model is on, gloo serves.
    """
    from foreloom.distributed.process import start, stop

    process = start("cpu")
    try:
        yield Sharing(process, Console(quiet=not process.is_main))
    finally:
        stop()
