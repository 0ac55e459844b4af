"""The Time-MoE decoder: causal attention and a mixture of experts, each behind a norm and added to the residual stream.

Axes: B rows, T steps of this forward, S steps the keys hold (more than T with a cache), D model width, H heads, G heads
of keys and values, K width of a head. Module names are those of the published state dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.common.attention import Implementation, KeyValueCache, attend, causal_mask, packed_mask
from foreloom.models.common.layers import GatedFeedForward, RMSNorm, rotary_at, rotary_table, rotate
from foreloom.models.common.moe import MixtureOfExperts, Routing
from foreloom.models.time_moe.architecture import Architecture


class AttentionPattern(NamedTuple):
    """Where the steps of a forward are and what they may look at, the same in every layer."""

    rotary: tuple[Tensor, Tensor]
    """Cosine and sine, (T, K/2) or (B, 1, T, K/2)."""
    mask_BHTS: Tensor | None
    """bool, broadcasting: True where a step may look. None: everything up to itself."""
    implementation: Implementation

    def last(self, num_steps: int) -> AttentionPattern:
        """The same for the last steps only."""
        cos, sin = self.rotary
        mask = None if self.mask_BHTS is None else self.mask_BHTS[..., -num_steps:, :]
        return AttentionPattern((cos[..., -num_steps:, :], sin[..., -num_steps:, :]), mask, self.implementation)


def attention_pattern(
    x_BT: Tensor,
    arch: Architecture,
    *,
    num_past: int,
    attention_mask: Tensor | None,
    position_BS: Tensor | None,
    group_BS: Tensor | None,
    implementation: Implementation,
) -> AttentionPattern:
    """Plain causal attention wherever nothing else is asked, since only that is fast everywhere.

    ValueError where `attention_mask` is not (B, S).
    """
    (num_rows, num_steps), device = x_BT.shape, x_BT.device
    num_keys = num_past + num_steps
    if position_BS is None:
        cos, sin = rotary_table(num_keys, arch.head_width, arch.rope_theta, device)
        cos, sin = cos[num_past:], sin[num_past:]
    else:
        cos, sin = rotary_at(position_BS[:, None], arch.head_width, arch.rope_theta)
    if attention_mask is None and group_BS is None:
        return AttentionPattern((cos, sin), None, implementation)
    mask = causal_mask(num_steps, num_keys, device) if group_BS is None else packed_mask(group_BS)
    if attention_mask is not None:
        if attention_mask.shape != (num_rows, num_keys):
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; expected {(num_rows, num_keys)}, a number "
                "for every step of every row."
            )
        # A step of padding sees itself, so that what it computes, which nobody reads, is finite.
        itself = causal_mask(num_steps, num_keys, device).triu(num_keys - num_steps)
        mask = (mask & (attention_mask[:, None, None, :] > 0)) | itself
    return AttentionPattern((cos, sin), mask, implementation)


def segment_positions(segment_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Of packed rows: each step's position in its segment, and the segment's number counted over the whole batch."""
    step_T = torch.arange(segment_BT.shape[1], device=segment_BT.device)
    begins_BT = torch.ones_like(segment_BT, dtype=torch.bool)
    begins_BT[:, 1:] = segment_BT[:, 1:] != segment_BT[:, :-1]
    start_BT = torch.where(begins_BT, step_T, 0).cummax(1).values
    group_BT = (begins_BT.flatten().cumsum(0) - 1).view_as(segment_BT)
    return step_T - start_BT, group_BT


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

    def forward(
        self, x_BTD: Tensor, pattern: AttentionPattern, cache: KeyValueCache | None, num_last: int | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, num_last, D): the steps whose result is read."""
        heads = lambda y: y.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        seen = pattern if num_last is None else pattern.last(num_last)
        asking = x_BTD if num_last is None else x_BTD[:, -num_last:]
        q_BHTK = rotate(heads(self.q_proj(asking)), *seen.rotary)
        k_BGSK, v_BGSK = rotate(heads(self.k_proj(x_BTD)), *pattern.rotary), heads(self.v_proj(x_BTD))
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
            implementation=pattern.implementation,
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
        self, h_BTD: Tensor, pattern: AttentionPattern, cache: KeyValueCache | None = None, num_last: int | None = None
    ) -> tuple[Tensor, Routing | None]:
        """The residual stream after this layer, of the last `num_last` steps where a number is given, and how its
        steps were routed; None for a dense layer."""
        mixed = self.self_attn(self.input_layernorm(h_BTD), pattern, cache, num_last)
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
        pattern: AttentionPattern,
        caches: Sequence[KeyValueCache] | None,
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
            h_BTD, routing = layer(h_BTD, pattern, cache, num_last if is_last else None)
            routings.append(routing)
        h_BTD = self.norm(h_BTD)
        routing = None
        if num_last is None and routings[0] is not None:
            routing = Routing(*(torch.stack(parts) for parts in zip(*routings, strict=True)))  # type: ignore[arg-type]
        return h_BTD, routing, (*states, h_BTD) if keeps_states else None
