"""Floating-point operations of Chronos-2, counted as 2 a multiply-add of matrix products; the rest is not counted."""

from __future__ import annotations

from torch import nn

from foreloom.models.chronos2.architecture import architecture_of_module


def flops_per_row(module: nn.Module, context_length: int, horizon: int) -> float:
    """Forward and backward of one row that is alone in its group: 3 times the forward.

    With N context patches, n future patches, T = N + R + n tokens, width D, heads together I, feed-forward F:
    a block costs 2 * [T (3 D I + I D) + 2 T^2 I] for time attention, 2 * T (D I + I D) for group attention (no q, k for
    a lone row) and 2 * T * 2 D F for the feed-forward; the last block only n tokens but for its keys and values;
    the patch embedding 2 * (N + n) (3P F + F D + 3P D), the head 2 * n (D F + F Q P + D Q P).
    """
    arch = architecture_of_module(module)
    patch = arch.input_patch_size
    num_context, num_future = -(-min(context_length, arch.context_length) // patch), -(-horizon // patch)
    num_tokens = num_context + arch.use_reg_token + num_future
    width, inner, hidden = arch.d_model, arch.inner_width, arch.d_ff

    def block(num_queries: int) -> float:
        time = 2 * num_tokens * width * inner + 2 * num_queries * width * inner + 2 * num_queries * num_tokens * inner
        return time + 2 * num_queries * width * inner + 2 * num_queries * width * hidden

    patch_embedding = (num_context + num_future) * (3 * patch * (hidden + width) + hidden * width)
    out = len(arch.quantiles) * patch
    head = num_future * (width * hidden + hidden * out + width * out)
    multiply_adds = patch_embedding + (arch.num_layers - 1) * block(num_tokens) + block(num_future) + head
    return 3 * 2.0 * multiply_adds
