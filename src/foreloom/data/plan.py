"""The micro-batch plan: which samples of a global batch run together, on which rank. A pure function of row counts.

Axes: N samples of the global batch.
"""

from __future__ import annotations

import numpy as np


def plan_micro_batches(
    num_rows_N: np.ndarray, num_steps_N: np.ndarray, *, world_size: int, micro_batch_size: int = 0
) -> list[list[np.ndarray]]:
    """Positions of the samples of each micro-batch, as plan[rank][micro_step].

    Samples are sorted by context length and cut into `world_size` x k consecutive bins, k as small as
    `micro_batch_size` rows allow (0: no limit, k = 1); among such cuts the one is taken whose largest padded area (rows
    x longest context) is least. Bins next to each other run at the same time, so ranks wait little for one another.
    A sample is never split; one with more rows than the budget gets a bin of its own. Every rank has k micro-batches,
    the last may be empty.
    """
    order_N = np.argsort(-num_steps_N, kind="stable")
    rows_before = np.concatenate([[0], np.cumsum(num_rows_N[order_N])])
    steps = num_steps_N[order_N]
    budget = micro_batch_size or int(rows_before[-1])

    num_micro_steps = -(-len(_cut(rows_before, steps, budget, np.inf)) // world_size)
    num_bins = num_micro_steps * world_size
    low = int(num_rows_N @ num_steps_N) // num_bins
    high = int(rows_before[-1] * max(int(steps[0]), 1))
    while low < high:
        middle = (low + high) // 2
        if len(_cut(rows_before, steps, budget, middle)) <= num_bins:
            high = middle
        else:
            low = middle + 1
    ends = _cut(rows_before, steps, budget, low)
    bins = [np.sort(chunk) for chunk in np.split(order_N, ends[:-1])]
    bins += [order_N[:0]] * (num_bins - len(bins))
    return [bins[rank::world_size] for rank in range(world_size)]


def _cut(rows_before: np.ndarray, steps: np.ndarray, budget: int, area: float) -> list[int]:
    """Ends of consecutive bins, each filled as far as both limits allow, with one sample at least."""
    ends: list[int] = []
    begin = 0
    while begin < len(steps):
        rows = min(budget, area // max(int(steps[begin]), 1))
        end = int(np.searchsorted(rows_before, rows_before[begin] + rows, side="right")) - 1
        begin = max(end, begin + 1)
        ends.append(begin)
    return ends
