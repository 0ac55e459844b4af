"""From the host to a device without waiting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy through pinned memory on CUDA, where a copy from other memory may wait for all work under way; on the CPU
    the tensor is the array itself where that lies in one piece."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
