"""Floating-point operations of Chronos-T5, counted as 2 a multiply-add of matrix products; the rest is not counted."""

from __future__ import annotations

from torch import nn

from foreloom.models.chronos_t5.architecture import Architecture, architecture_of_module


def flops_per_row(module: nn.Module, context_length: int, horizon: int) -> float:
    """Forward and backward of one row: 3 times the forward.

    With S tokens of context, T of horizon (end markers included), width D, heads together I, feed-forward F and a
    vocabulary of V: an encoder block costs 2 * [4 S D I + 2 S^2 I + S f D F], f being 2 (3 where gated); a decoder
    block 2 * [4 T D I + 2 T^2 I + 2 T D I + 2 S D I + 2 T S I + T f D F]; the head 2 T D V. With experts the head is k
    of them, each 2 T (8 D^2 + D V), and the router costs 2 (D r + r E).
    """
    arch = architecture_of_module(module)
    context_length = min(context_length, arch.context_length)
    if arch.model_type == "causal":
        return 3 * 2.0 * _causal(arch, context_length + horizon + arch.use_eos_token)
    num_source, num_target = context_length + arch.use_eos_token, horizon + arch.use_eos_token
    width, inner = arch.d_model, arch.inner_width
    feed_forward = (3 if arch.feed_forward_proj.startswith("gated") else 2) * width * arch.d_ff
    encoder = num_source * (4 * width * inner + 2 * num_source * inner + feed_forward)
    own = num_target * (4 * width * inner + 2 * num_target * inner + feed_forward)
    across = 2 * num_target * width * inner + 2 * num_source * width * inner + 2 * num_target * num_source * inner
    head = num_target * width * arch.n_tokens
    if arch.use_moe:
        router = width * arch.router_hidden_dim + arch.router_hidden_dim * arch.num_experts
        head = arch.num_active_experts * (head + 8 * num_target * width**2) + router
    return 3 * 2.0 * (arch.num_layers * encoder + arch.num_decoder_layers * (own + across) + head)


def _causal(arch: Architecture, num_tokens: int) -> int:
    """Multiply-adds of a decoder alone, attention over the full square as it is computed."""
    width = arch.d_model
    block = num_tokens * (4 * width**2 + 2 * num_tokens * width + 2 * width * arch.d_ff)
    return arch.num_layers * block + num_tokens * width * arch.n_tokens
