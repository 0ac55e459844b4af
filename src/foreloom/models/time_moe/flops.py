"""Floating-point operations of Time-MoE, counted as 2 a multiply-add of matrix products; the rest is not counted."""

from __future__ import annotations

from torch import nn

from foreloom.models.time_moe.architecture import architecture_of_module


def flops_per_row(module: nn.Module, context_length: int, horizon: int) -> float:
    """Forward and backward of one training row of T = context + horizon - 1 steps: 3 times the forward.

    With width D, keys and values of width G together, shared expert I, experts F = I / k, E of them, all horizons X:
    a step of a layer costs 2 D D + 2 D G for projections, T D for attention (a step sees T / 2 others on average),
    3 k D F + 3 D I + D E + D for experts, shared expert, router and gate (3 D I in a dense model); the heads D X.
    """
    arch = architecture_of_module(module)
    num_steps = context_length + horizon - 1
    width, inner = arch.hidden_size, arch.intermediate_size
    projections = 2 * width * width + 2 * width * arch.num_key_value_heads * arch.head_width
    feed_forward = 3 * width * inner
    if not arch.use_dense:
        feed_forward += 3 * arch.num_experts_per_tok * width * arch.expert_width + width * arch.num_experts + width
    layer = projections + num_steps * width + feed_forward
    step = arch.num_hidden_layers * layer + width * sum(arch.horizon_lengths) + 2 * width
    return 3 * 2.0 * num_steps * step
