"""Floating-point operations of Chronos-Bolt: 2 a multiply-add of its matrix products; the rest is not counted."""

from __future__ import annotations

from torch import nn

from foreloom.models.chronos_bolt.architecture import architecture_of_module


def flops_per_row(module: nn.Module, context_length: int, horizon: int) -> float:
    """Forward and backward of one row: 3 times the forward. The head gives its whole horizon, whatever is asked.

    With N patches of P steps, T = N + R tokens, width D, heads together I, feed-forward F and Q levels of H steps: an
    encoder block costs 2 * T (4 D I + 2 T I + 2 D F); a decoder block, which has one token, 2 * (4 D I + 2 I) for
    itself, 2 * (2 D I + 2 T D I + 2 T I) across and 2 * 2 D F; the patch embedding 2 * N (2P F + F D + 2P D), the head
    2 * (D F + F QH + D QH).
    """
    arch = architecture_of_module(module)
    num_patches = arch.num_patches(min(context_length, arch.context_length))
    num_tokens = num_patches + arch.use_reg_token
    width, inner, hidden = arch.d_model, arch.inner_width, arch.d_ff
    feed_forward = 2 * width * hidden
    encoder = num_tokens * (4 * width * inner + 2 * num_tokens * inner + feed_forward)
    own = 4 * width * inner + 2 * inner
    across = 2 * width * inner + 2 * num_tokens * width * inner + 2 * num_tokens * inner
    residual = lambda num_in, num_out: num_in * hidden + hidden * num_out + num_in * num_out
    patch_embedding = num_patches * residual(2 * arch.input_patch_size, width)
    head = residual(width, len(arch.quantiles) * arch.prediction_length)
    decoder = own + across + feed_forward
    return 3 * 2.0 * (patch_embedding + arch.num_layers * encoder + arch.num_decoder_layers * decoder + head)
