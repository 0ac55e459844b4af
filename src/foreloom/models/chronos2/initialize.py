"""Random initial values of Chronos-2, as chronos-forecasting draws them: T5's rules times a small factor."""

from __future__ import annotations

import torch
from torch import nn

from foreloom.models.chronos2.architecture import Architecture, architecture_of_module
from foreloom.models.common.initialize import normal_by_name


def initialize(module: nn.Module, seed: int) -> None:
    """Fill every parameter. Norm weights start at the factor too (0.05), which is the reference's choice, not 1."""
    arch = architecture_of_module(module)
    for name, parameter in module.named_parameters():
        if name.endswith("layer_norm.weight"):
            torch.nn.init.constant_(parameter, arch.initializer_factor)
        elif name.endswith(".bias"):
            torch.nn.init.zeros_(parameter)
        else:
            normal_by_name(parameter, name, seed, arch.initializer_factor * relative_std(name, parameter, arch))


def relative_std(name: str, parameter: torch.Tensor, arch: Architecture) -> float:
    """Standard deviation in units of the factor: 1/sqrt(fan in), q smaller by sqrt(d_kv) for unscaled scores."""
    if name == "shared.weight":
        return 1.0
    fan_in = parameter.shape[1]
    if name.endswith("self_attention.q.weight"):
        fan_in *= arch.d_kv
    return fan_in**-0.5
