"""Random initial values of Chronos-T5: T5's rules times a factor, and an even start for experts."""

from __future__ import annotations

from torch import nn

from foreloom.models.chronos_t5.architecture import architecture_of_module
from foreloom.models.chronos_t5.experts import initialize_experts
from foreloom.models.common.t5.initialize import initialize_t5


def initialize(module: nn.Module, seed: int) -> None:
    """Fill every parameter."""
    arch = architecture_of_module(module)
    for name, parameter in module.named_parameters():
        if name.startswith("moe."):
            initialize_experts(name, parameter, seed)
        else:
            initialize_t5(name, parameter, arch, seed)
