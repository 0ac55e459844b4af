"""Weights between a model and its fine-tuned copy (Wortsman et al. 2022, "WiSE-FT")."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from foreloom.models.family import ModelFamily

SHARES = (1.0, 0.5)
"""How far from the model as it was towards the tuned one: all the way, and halfway."""


def between(family: ModelFamily, base: Path, tuned: Path, share: float) -> nn.Module:
    """The model whose weights are base + share * (tuned - base), on the CPU; what is not floating is the tuned one's.

    Both folders hold models of one shape.
    """
    module = family.load(tuned)
    if share == 1:
        return module.eval()
    of_base = family.load(base).state_dict()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.lerp(of_base[name], tensor, share))
    return module.eval()
