"""What Time-MoE's parameters are for."""

from __future__ import annotations

from fractions import Fraction

from torch import nn

from foreloom.models.common.parts import Part, count_parts
from foreloom.models.time_moe.architecture import architecture_of_module

_PARTS = {
    r"^model\.embed_layer\.": "embedding",
    r"\.self_attn\.": "attention",
    r"\.ffn_layer\.(gate|shared_expert_gate)\.": "routers and gates",
    r"\.ffn_layer\.experts\.": "experts",
    r"\.ffn_layer\.shared_expert\.": "shared experts",
    r"\.ffn_layer\.": "feed-forward",
    r"norm\.": "norms",
    r"^lm_heads\.": "heads",
}


def parts(module: nn.Module) -> tuple[Part, ...]:
    """A step runs through k of a layer's E experts and through the shared one, the feed-forward of a dense model."""
    arch = architecture_of_module(module)
    share = Fraction(arch.num_experts_per_tok, arch.num_experts)
    return count_parts(module, _PARTS, {"routers and gates": Fraction(1), "experts": share})
