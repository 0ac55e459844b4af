"""The Time-MoE decoder: causal attention and a mixture of experts, each behind a norm and added to the residual stream.

Axes: B rows, T steps of this forward, S steps the keys hold (more than T with a cache), D model width, H heads, G heads
of keys and values, K width of a head. Module names are those of the published state dict.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.common.attention import attend
from foreloom.models.common.gated_feed_forward import GatedFeedForward
from foreloom.models.common.moe import MixtureOfExperts, Routing
from foreloom.models.common.norm import RMSNorm
from foreloom.models.common.rope import rotate
from foreloom.models.time_moe.architecture import Architecture
from foreloom.models.time_moe.cache import LayerCache
from foreloom.models.time_moe.sight import Sight


class SelfAttention(nn.Module):
    """Rotary attention with fewer heads of keys and values where asked; biases on all projections but the last."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        key_width = arch.num_key_value_heads * arch.head_width
        self.q_proj = nn.Linear(arch.hidden_size, arch.hidden_size)
        self.k_proj = nn.Linear(arch.hidden_size, key_width)
        self.v_proj = nn.Linear(arch.hidden_size, key_width)
        self.o_proj = nn.Linear(arch.hidden_size, arch.hidden_size, bias=False)
        self.head_width = arch.head_width
        self.dropout_rate = arch.attention_dropout

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None, num_last: int | None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, num_last, D): the steps whose result is read."""
        heads = lambda y: y.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        seen = sight if num_last is None else sight.last(num_last)
        asking = x_BTD if num_last is None else x_BTD[:, -num_last:]
        q_BHTK = rotate(heads(self.q_proj(asking)), *seen.rotary)
        k_BGSK, v_BGSK = rotate(heads(self.k_proj(x_BTD)), *sight.rotary), heads(self.v_proj(x_BTD))
        if cache is not None:
            k_BGSK, v_BGSK = cache.append(k_BGSK, v_BGSK)
        mixed_BHTK = attend(
            q_BHTK,
            k_BGSK,
            v_BGSK,
            mask=seen.mask_BHTS,
            is_causal=seen.mask_BHTS is None,
            scale=self.head_width**-0.5,
            dropout=self.dropout_rate if self.training else 0.0,
            implementation=sight.implementation,
        )
        return self.o_proj(mixed_BHTK.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """One block: the unit of sharding, recomputation and compilation."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.self_attn = SelfAttention(arch)
        self.ffn_layer = _feed_forward(arch)
        self.input_layernorm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)

    def forward(
        self, h_BTD: Tensor, sight: Sight, cache: LayerCache | None = None, num_last: int | None = None
    ) -> tuple[Tensor, Routing | None]:
        """The residual stream after this layer, of the last `num_last` steps where a number is given, and how its
        steps were routed; None for a dense layer."""
        mixed = self.self_attn(self.input_layernorm(h_BTD), sight, cache, num_last)
        h_BTD = (h_BTD if num_last is None else h_BTD[:, -num_last:]) + mixed
        routing = None
        y = self.ffn_layer(self.post_attention_layernorm(h_BTD))
        if isinstance(self.ffn_layer, MixtureOfExperts):
            y, routing = y
        return h_BTD + y, routing


def _feed_forward(arch: Architecture) -> nn.Module:
    if arch.use_dense:
        return GatedFeedForward(arch.hidden_size, arch.intermediate_size)
    return MixtureOfExperts(
        arch.hidden_size,
        arch.expert_width,
        arch.num_experts,
        arch.num_experts_per_tok,
        shared_width=arch.intermediate_size,
        has_bias=arch.use_expert_bias,
    )


class InputEmbedding(nn.Module):
    """silu(gate x) * emb x: one token a step, in the precision of the weights, or values would lose their digits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb_layer = nn.Linear(1, width, bias=False)
        self.gate_layer = nn.Linear(1, width, bias=False)

    def forward(self, x_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        x_BT1 = x_BT.to(self.emb_layer.weight.dtype)[..., None]
        # Plain products: those of matrices would be taken in half precision under autocast.
        return F.silu(x_BT1 * self.gate_layer.weight[:, 0]) * (x_BT1 * self.emb_layer.weight[:, 0])


class Decoder(nn.Module):
    """Embedding, blocks and a final norm."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.embed_layer = InputEmbedding(arch.hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(arch) for _ in range(arch.num_hidden_layers)])
        self.norm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)

    def forward(
        self,
        x_BT: Tensor,
        sight: Sight,
        caches: Sequence[LayerCache] | None,
        num_last: int | None,
        *,
        keeps_states: bool,
    ) -> tuple[Tensor, Routing | None, tuple[Tensor, ...] | None]:
        """Final hidden states of all steps (B, T, D) or of the last `num_last`; the routing of all layers, stacked
        (L, N, ...), without `num_last` and of experts; where asked, the states before each layer and at the end."""
        h_BTD = self.embed_layer(x_BT)
        states: list[Tensor] = []
        routings: list[Routing | None] = []
        for index, layer in enumerate(self.layers):
            states += [h_BTD] if keeps_states else []
            is_last = index == len(self.layers) - 1
            cache = None if caches is None else caches[index]
            h_BTD, routing = layer(h_BTD, sight, cache, num_last if is_last else None)
            routings.append(routing)
        h_BTD = self.norm(h_BTD)
        routing = None
        if num_last is None and routings[0] is not None:
            routing = Routing(*(torch.stack(parts) for parts in zip(*routings, strict=True)))  # type: ignore[arg-type]
        return h_BTD, routing, (*states, h_BTD) if keeps_states else None
