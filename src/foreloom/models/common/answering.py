"""How a module is asked while it may be in training."""

from __future__ import annotations

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
    was_training = module.training
    module.eval()
    try:
        with subnormals.flushed(), torch.no_grad():
            yield
    finally:
        module.train(was_training)
