"""Random initial values of Chronos-Bolt, as chronos-forecasting draws them: T5's rules times a small factor."""

from __future__ import annotations

from torch import Tensor, nn

from foreloom.models.chronos_bolt.architecture import Architecture, architecture_of_module
from foreloom.models.common.initialize import normal_by_name
from foreloom.models.common.t5.initialize import initialize_t5


def initialize(module: nn.Module, seed: int) -> None:
    """Fill every parameter. Norm weights start at the factor too (0.05), which is the reference's choice, not 1."""
    arch = architecture_of_module(module)
    for name, parameter in module.named_parameters():
        if "patch_embedding." in name:
            _initialize_patch_embedding(name, parameter, arch, seed)
        else:
            initialize_t5(name, parameter, arch, seed)


def _initialize_patch_embedding(name: str, parameter: Tensor, arch: Architecture, seed: int) -> None:
    """Of the patch embeddings; the reference takes the width of an input patch for the output's too."""
    if name.endswith(".bias"):
        nn.init.zeros_(parameter)
        return
    fan_in = arch.d_ff if ".output_layer." in name else 2 * arch.input_patch_size
    normal_by_name(parameter, name, seed, arch.initializer_factor * fan_in**-0.5)
