"""T5's encoder and decoder (Raffel et al. 2020): pre-norm blocks of attention and feed-forward.

Axes: B rows, R rows of the decoder (B, or several a row of the encoder), T tokens, S tokens of the encoder, D model
width, H heads. Module names are those of the published state dict.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.common.attention import causal_mask
from foreloom.models.common.dropout import add_dropped, dropout
from foreloom.models.common.layers import FeedForward, RMSNorm
from foreloom.models.common.t5.attention import Attention, CrossCache, DecoderCache, KeyValueCache, hide
from foreloom.models.common.t5.shape import T5Shape


class Layer(nn.Module):
    """Norm, something, dropout, residual."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.layer_norm = RMSNorm(shape.d_model, shape.layer_norm_epsilon)
        self.dropout_rate = shape.dropout_rate

    def add(self, h: Tensor, x: Tensor) -> Tensor:
        return add_dropped(h, x, self.dropout_rate, self.training)


class SelfAttentionLayer(Layer):
    """Positions of a row see each other."""

    def __init__(self, shape: T5Shape, *, has_positions: bool, is_bidirectional: bool) -> None:
        super().__init__(shape)
        self.SelfAttention = Attention(shape, has_positions=has_positions, is_bidirectional=is_bidirectional)

    def forward(self, h_BTD: Tensor, bias: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        return self.add(h_BTD, self.SelfAttention.attend_self(self.layer_norm(h_BTD), bias, cache))

    def position_bias(self, num_queries: int, num_keys: int) -> Tensor:
        """(1, H, T, S), of a first block: the queries are the last T of the S positions."""
        return self.SelfAttention.position_bias(num_queries, num_keys)


class CrossAttentionLayer(Layer):
    """The decoder's positions see the encoder's."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__(shape)
        self.EncDecAttention = Attention(shape)

    def forward(self, h_RTD: Tensor, memory_BSD: Tensor, mask_BS: Tensor | None, cache: CrossCache | None) -> Tensor:
        mixed = self.EncDecAttention.attend_across(self.layer_norm(h_RTD), memory_BSD, mask_BS, cache)
        return self.add(h_RTD, mixed)


class FeedForwardLayer(Layer):
    """Each position alone."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__(shape)
        activation = shape.feed_forward_proj
        self.DenseReluDense = (
            GatedGelu(shape)
            if activation == "gated-gelu"
            else FeedForward(shape.d_model, shape.d_ff, activation, shape.dropout_rate)
        )

    def forward(self, h_BTD: Tensor) -> Tensor:
        return self.add(h_BTD, self.DenseReluDense(self.layer_norm(h_BTD)))


class GatedGelu(nn.Module):
    """wo(dropout(gelu(wi_0 x) * wi_1 x)), the GELU by its tanh approximation, no biases (T5 1.1; Shazeer 2020)."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(shape.d_model, shape.d_ff, bias=False)
        self.wi_1 = nn.Linear(shape.d_model, shape.d_ff, bias=False)
        self.wo = nn.Linear(shape.d_ff, shape.d_model, bias=False)
        self.dropout_rate = shape.dropout_rate

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x)
        return self.wo(dropout(hidden, self.dropout_rate, self.training))


class EncoderBlock(nn.Module):
    """The unit of sharding, recomputation and compilation."""

    has_positions = False

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        attention = SelfAttentionLayer(shape, has_positions=self.has_positions, is_bidirectional=True)
        self.layer = nn.ModuleList([attention, FeedForwardLayer(shape)])

    def forward(self, h_BTD: Tensor, bias: Tensor) -> Tensor:
        """The residual stream after this block. `bias` is the first block's."""
        attention, feed_forward = self.layer
        return feed_forward(attention(h_BTD, bias))


class FirstEncoderBlock(EncoderBlock):
    """Makes the bias that all blocks use. A class of its own, so that compiling tells its graphs from the others'."""

    has_positions = True

    def forward(self, h_BTD: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The residual stream, and the bias (1 or B, H, T, T)."""
        attention, feed_forward = self.layer
        bias = cast(SelfAttentionLayer, attention).position_bias(h_BTD.shape[1], h_BTD.shape[1])
        bias = bias if mask_BT is None else hide(bias, mask_BT[:, None, None, :])
        return feed_forward(attention(h_BTD, bias)), bias


class DecoderBlock(nn.Module):
    """As the encoder's, with attention to the encoder between."""

    has_positions = False

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        attention = SelfAttentionLayer(shape, has_positions=self.has_positions, is_bidirectional=False)
        self.layer = nn.ModuleList([attention, CrossAttentionLayer(shape), FeedForwardLayer(shape)])

    def forward(
        self,
        h_RTD: Tensor,
        bias: Tensor,
        memory_BSD: Tensor,
        mask_BS: Tensor | None,
        own: KeyValueCache | None = None,
        across: CrossCache | None = None,
    ) -> Tensor:
        """The residual stream after this block. `bias` is the first block's."""
        attention, cross_attention, feed_forward = self.layer
        return feed_forward(cross_attention(attention(h_RTD, bias, own), memory_BSD, mask_BS, across))


class FirstDecoderBlock(DecoderBlock):
    """Makes the bias that all blocks use."""

    has_positions = True

    def forward(  # type: ignore[override]
        self,
        h_RTD: Tensor,
        memory_BSD: Tensor,
        mask_BS: Tensor | None,
        own: KeyValueCache | None = None,
        across: CrossCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The residual stream, and the bias (1, H, T, all positions so far)."""
        attention, cross_attention, feed_forward = self.layer
        num_new = h_RTD.shape[1]
        num_keys = num_new + (own.length if own else 0)
        bias = cast(SelfAttentionLayer, attention).position_bias(num_new, num_keys)
        if num_new > 1:  # a last position sees everything
            bias = hide(bias, causal_mask(num_new, num_keys, bias.device))
        h_RTD = cross_attention(attention(h_RTD, bias, own), memory_BSD, mask_BS, across)
        return feed_forward(h_RTD), bias


class Encoder(nn.Module):
    """Embedded tokens -> states."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        later = [EncoderBlock(shape) for _ in range(shape.num_layers - 1)]
        self.block = nn.ModuleList([FirstEncoderBlock(shape), *later])
        self.final_layer_norm = RMSNorm(shape.d_model, shape.layer_norm_epsilon)
        self.dropout_rate = shape.dropout_rate

    def forward(self, h_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """(B, T, D). `mask_BT`: False hides a token from all; None where all are there."""
        first, *later = self.block
        h_BTD, bias = first(dropout(h_BTD, self.dropout_rate, self.training), mask_BT)
        for block in later:
            h_BTD = block(h_BTD, bias)
        return dropout(self.final_layer_norm(h_BTD), self.dropout_rate, self.training)


class Decoder(nn.Module):
    """Embedded tokens and the encoder's states -> states, causal."""

    def __init__(self, shape: T5Shape) -> None:
        super().__init__()
        later = [DecoderBlock(shape) for _ in range(shape.num_decoder_layers - 1)]
        self.block = nn.ModuleList([FirstDecoderBlock(shape), *later])
        self.final_layer_norm = RMSNorm(shape.d_model, shape.layer_norm_epsilon)
        self.dropout_rate = shape.dropout_rate

    def forward(
        self, h_RTD: Tensor, memory_BSD: Tensor, mask_BS: Tensor | None, cache: DecoderCache | None = None
    ) -> Tensor:
        """(R, T, D). R is B, or a multiple of it: then so many rows one after another share a row of the encoder.

        With a cache the T tokens follow those in it, to which they are added.
        """
        layer_caches = list(zip(cache.own, cache.across, strict=True)) if cache else [(None, None)] * len(self.block)
        (first, *later), (first_caches, *later_caches) = self.block, layer_caches
        h_RTD = dropout(h_RTD, self.dropout_rate, self.training)
        h_RTD, bias = first(h_RTD, memory_BSD, mask_BS, *first_caches)
        for block, caches in zip(later, later_caches, strict=True):
            h_RTD = block(h_RTD, bias, memory_BSD, mask_BS, *caches)
        return dropout(self.final_layer_norm(h_RTD), self.dropout_rate, self.training)


def visible(mask_BS: Tensor | None) -> Tensor | None:
    """bool, the mask with rows that hide everything opened: softmax needs something to look at."""
    if mask_BS is None:
        return None
    mask_BS = mask_BS > 0
    return mask_BS | ~mask_BS.any(-1, keepdim=True)


BLOCKS = tuple(f"{stack}.block.{number}" for stack in ("encoder", "decoder") for number in ("[0-9]", "[0-9][0-9]"))
"""Names of the blocks in a model that holds the stacks as `encoder` and `decoder`, for `Sharding`."""
