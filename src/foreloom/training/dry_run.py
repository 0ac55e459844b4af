"""The worst case a run will meet, tried before the first step: running out of memory costs a minute, not a night."""

from __future__ import annotations

import numpy as np
import torch

from foreloom.data.windows import Windows
from foreloom.distributed.process import Process


def worst_case(windows: Windows, *, num_rows: int, context_length: int, prediction_length: int) -> Windows:
    """`windows` repeated to at least `num_rows` rows, nothing missing, at the full lengths (in steps).

    Groups keep their sizes, so group attention costs what it costs in the run.
    """
    have = windows.num_rows
    copies = max(1, -(-num_rows // have))
    rows = max(num_rows, have)
    group_R = np.concatenate([windows.group_R + copy * (windows.group_R.max() + 1) for copy in range(copies)])
    ramp_C = np.sin(np.arange(context_length, dtype=np.float32))
    ramp_H = np.sin(np.arange(prediction_length, dtype=np.float32))
    return Windows(
        context_RC=np.tile(ramp_C, (rows, 1)),
        future_RH=np.tile(ramp_H, (rows, 1)),
        role_R=np.tile(windows.role_R, copies)[:rows],
        group_R=group_R[:rows],
        sample_R=np.full(rows, -1, dtype=np.int64),
        source_R=np.tile(windows.source_R, copies)[:rows],
        item_R=np.tile(windows.item_R, copies)[:rows],
    )


def out_of_memory_sentence(error: torch.OutOfMemoryError, windows: Windows, process: Process) -> str:
    rows, steps = windows.context_RC.shape
    horizon = windows.future_RH.shape[1]
    return (
        f"one micro-batch of {rows} rows with {steps} context and {horizon} future steps does not fit on "
        f"{process.device} of rank {process.rank} ({str(error).splitlines()[0]}). Set training.micro_batch_size below "
        f"{rows} (results stay the same), or training.activation_checkpointing=true, or share the model between "
        "devices with parallel.strategy=fsdp"
    )
