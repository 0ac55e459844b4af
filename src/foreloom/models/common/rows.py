"""Series of different lengths as the rows of one array: cut, filled, padded, batched, and brought to the device.

Axes: R rows, C steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def without_leading_padding(context_RC: np.ndarray) -> np.ndarray:
    """Drop the leading steps that no row observes; one step stays in any case."""
    observed_C = ~np.isnan(context_RC).all(0)
    first = int(observed_C.argmax()) if observed_C.any() else context_RC.shape[1] - 1
    return context_RC[:, first:]


def left_padded(rows: Sequence[np.ndarray], filler: float) -> np.ndarray:
    """float32 (R, longest, ...), `filler` before the rows that are shorter."""
    longest = max(map(len, rows))
    padded = np.full((len(rows), longest, *rows[0].shape[1:]), filler, np.float32)
    for row, values in zip(padded, rows, strict=True):
        row[longest - len(values) :] = values
    return padded


def last_observed(x_RC: np.ndarray, observed_RC: np.ndarray) -> np.ndarray:
    """Each step or, where it is missing, the last observed one before it; before the first such, the first step."""
    latest_RC = np.maximum.accumulate(np.where(observed_RC, np.arange(x_RC.shape[1]), 0), axis=1)
    return np.take_along_axis(x_RC, latest_RC, axis=1)


def batches(num_rows: Sequence[int], batch_size: int) -> Iterator[slice]:
    """Consecutive inputs, added until their rows reach `batch_size`; the rows of an input stay together."""
    start = rows = 0
    for index, count in enumerate(num_rows):
        rows += count
        if rows >= batch_size:
            yield slice(start, index + 1)
            start, rows = index + 1, 0
    if start < len(num_rows):
        yield slice(start, len(num_rows))


def batches_by_length(lengths: Sequence[int], batch_size: int, max_steps: int) -> Iterator[list[int]]:
    """Indices of rows of like length together, which saves padding: at most `batch_size`, and `max_steps` steps."""
    chosen: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if chosen and (len(chosen) == batch_size or (len(chosen) + 1) * lengths[i] > max_steps):
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy through pinned memory on CUDA, where a copy from other memory may wait for all work under way; on the CPU
    the tensor is the array itself where that lies in one piece."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
