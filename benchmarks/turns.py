"""Two sides that take turns, so that a busy machine slows both: medians and the median of their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Call = Callable[[], float]


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


def seconds(call: Call, clock: Call = time.perf_counter) -> float:
    start = clock()
    call()
    return clock() - start


def compare(
    name: str,
    pair: Sequence[Call],
    num_repeats: int,
    *,
    peer: str = "chronos-forecasting",
    clock: Call = time.perf_counter,
) -> None:
    """Warm both up, take turns, print medians and ratio."""
    for call in pair:
        call()
    times = [(seconds(pair[0], clock), seconds(pair[1], clock)) for _ in range(num_repeats)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    print(f"{name:<40} foreloom {ours * 1e3:8.0f} ms   {peer} {theirs * 1e3:8.0f} ms   {ratio:5.2f}x", flush=True)
