"""What Chronos-T5's parameters are for."""

from __future__ import annotations

from fractions import Fraction

from torch import nn

from foreloom.models.chronos_t5.architecture import architecture_of_module
from foreloom.models.common.parts import Part, count_parts

_PARTS = {
    r"^shared\.|^transformer\.wte\.": "embedding",
    r"^transformer\.wpe\.": "positions",
    r"^encoder\.": "encoder",
    r"^decoder\.|^transformer\.": "decoder",
    r"^moe\.router\.": "router",
    r"^moe\.experts\.": "experts, with their heads",
}


def parts(module: nn.Module) -> tuple[Part, ...]:
    """With experts, a series runs through k of E. Without, the embedding is the head too and counts once."""
    arch = architecture_of_module(module)
    share = Fraction(arch.num_active_experts, arch.num_experts)
    return count_parts(module, _PARTS, {"router": Fraction(1), "experts, with their heads": share})
