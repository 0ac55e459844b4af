"""Random values drawn by the parameter's name, so that they depend on neither world size nor construction order."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def normal_by_name(parameter: Tensor, name: str, seed: int, std: float) -> None:
    """Fill with N(0, std^2), drawn on the CPU by a generator seeded with (seed, name)."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    values = torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
    with torch.no_grad():
        parameter.copy_(values)
