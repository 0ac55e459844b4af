"""How a module is asked while it may be in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def answering(module: nn.Module) -> Iterator[None]:
    """No dropout and no graph. Not inference mode: a sharded module caches tensors that training uses again."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)
