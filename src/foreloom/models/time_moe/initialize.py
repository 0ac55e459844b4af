"""Random initial values of Time-MoE: normal matrices, norms of 1, biases of 0."""

from __future__ import annotations

import torch
from torch import nn

from foreloom.models.common.initialize import normal_by_name
from foreloom.models.time_moe.architecture import architecture_of_module
from foreloom.models.time_moe.official_names import official_views


def initialize(module: nn.Module, seed: int) -> None:
    """Fill every parameter and buffer. Names that seed are the official ones, so stacking experts changes no value."""
    std = architecture_of_module(module).initializer_range
    for name, tensor in official_views(module.state_dict()).items():
        if name.endswith("norm.weight"):
            torch.nn.init.ones_(tensor)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(tensor)
        else:
            normal_by_name(tensor, name, seed, std)
