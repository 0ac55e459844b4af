"""How a module is asked while it may be in training."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from foreloom import subnormals


@contextmanager
def answering(module: nn.Module) -> Iterator[None]:
    """No dropout, no graph, no subnormal floats.

    Not inference mode: a sharded module caches tensors that training uses again.
    """
    _keep_freed_memory()
    was_training = module.training
    module.eval()
    try:
        with subnormals.flushed(), torch.no_grad():
            yield
    finally:
        module.train(was_training)


@functools.cache
def _keep_freed_memory() -> None:
    """Have glibc keep what one layer frees (up to 64 MB) for the next, in place of getting fresh pages from the system
    for every large tensor: an eighth of a forecast on a CPU.

    It does so for blocks of up to the size of the largest that it has seen freed, and never of more than 32 MiB.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
