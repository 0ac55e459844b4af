"""Random initial values of Chronos-T5: T5's rules times a factor, and an even start for experts."""

from __future__ import annotations

from torch import nn

from foreloom.models.chronos_t5.architecture import architecture_of_module
from foreloom.models.chronos_t5.causal import initialize_causal
from foreloom.models.chronos_t5.experts import SampleExperts, initialize_experts, start_balance
from foreloom.models.common.t5.initialize import initialize_t5


def initialize(module: nn.Module, seed: int) -> None:
    """Fill every parameter, and what experts begin with beside them."""
    arch = architecture_of_module(module)
    for name, parameter in module.named_parameters():
        if name.startswith("moe."):
            initialize_experts(name, parameter, seed)
        elif arch.model_type == "causal":
            initialize_causal(name, parameter, arch, seed)
        else:
            initialize_t5(name, parameter, arch, seed)
    if isinstance(module.moe, SampleExperts):
        start_balance(module.moe)
