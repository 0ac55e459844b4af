"""A decoder: tokens in, the loss of the next ones out; each choice that studies of scaling ask for is a setting.

Axes: B rows, T tokens of this forward, S tokens the keys hold (more than T with a memory), D width, H heads, K width of
a head, F hidden width of a feed-forward, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.common.attention import Implementation, KeyValueCache, attend, packed_mask
from foreloom.models.common.dropout import add_dropped, dropout
from foreloom.models.common.layers import RMSNorm, rotary_at, rotary_table, rotate, silu_times
from foreloom.models.common.text import TextOutput, head_output
from foreloom.models.decoder.architecture import GATED, Architecture


class Pattern(NamedTuple):
    """Where the tokens of a forward are and what they may look at, the same in every layer."""

    rotary: tuple[Tensor, Tensor] | None
    """Cosine and sine, (T, K/2)."""
    mask: Tensor | None
    """(B, 1, T, T) bool where documents share rows; None: every token before."""
    implementation: Implementation


class Attention(nn.Module):
    """Causal attention; queries, keys and values are one product."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.qkv = nn.Linear(arch.d_model, 3 * arch.d_model, bias=arch.bias)
        self.output = nn.Linear(arch.d_model, arch.d_model, bias=arch.bias)
        self.num_heads = arch.num_heads
        self.scale = arch.attention_scale * arch.head_width**-0.5
        self.dropout_rate = arch.dropout

    def forward(self, x_BTD: Tensor, pattern: Pattern, memory: KeyValueCache | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        heads = lambda y_BTD: y_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        q_BHTK, k_BHSK, v_BHSK = map(heads, self.qkv(x_BTD).chunk(3, -1))
        if pattern.rotary is not None:
            q_BHTK, k_BHSK = rotate(q_BHTK, *pattern.rotary), rotate(k_BHSK, *pattern.rotary)
        if memory is not None:
            k_BHSK, v_BHSK = memory.append(k_BHSK, v_BHSK)
        mixed_BHTK = attend(
            q_BHTK,
            k_BHSK,
            v_BHSK,
            mask=pattern.mask,
            is_causal=pattern.mask is None,
            scale=self.scale,
            dropout=self.dropout_rate if self.training else 0.0,
            implementation=pattern.implementation,
        )
        return self.output(mixed_BHTK.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """output(act(input(x))), or output(act(gate) * up), where gate and up are the halves of input(x)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        num_halves = 2 if arch.activation in GATED else 1
        self.input = nn.Linear(arch.d_model, num_halves * arch.ff_width, bias=arch.bias)
        self.output = nn.Linear(arch.ff_width, arch.d_model, bias=arch.bias)
        self.activation = arch.activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        h = self.input(x)
        match self.activation:
            case "gelu":
                h = F.gelu(h)
            case "relu":
                h = torch.relu_(h)  # fresh memory would cost as much as the pass over it
            case "silu":
                h = F.silu(h)
            case "swiglu":
                h = silu_times(*h.chunk(2, -1))
            case _:
                gate, up = h.chunk(2, -1)
                h = torch.sigmoid(gate) * up
        return self.output(h)


def norm_of(arch: Architecture) -> nn.Module:
    """The norm that the architecture chooses."""
    if arch.norm == "rms":
        return RMSNorm(arch.d_model, arch.norm_eps)
    return nn.LayerNorm(arch.d_model, arch.norm_eps, bias=arch.bias)


class Layer(nn.Module):
    """One block: the unit of sharding, recomputation and compilation."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.attention_norm = norm_of(arch)
        self.attention = Attention(arch)
        self.feed_forward_norm = norm_of(arch)
        self.feed_forward = FeedForward(arch)
        self.is_pre = arch.norm_placement == "pre"
        self.residual_scale = arch.residual_scale
        self.dropout_rate = arch.dropout

    def forward(self, h_BTD: Tensor, pattern: Pattern, memory: KeyValueCache | None = None) -> Tensor:
        """The residual stream after this block."""
        if self.is_pre:
            h_BTD = self._join(h_BTD, self.attention(self.attention_norm(h_BTD), pattern, memory))
            return self._join(h_BTD, self.feed_forward(self.feed_forward_norm(h_BTD)))
        h_BTD = self.attention_norm(self._join(h_BTD, self.attention(h_BTD, pattern, memory)))
        return self.feed_forward_norm(self._join(h_BTD, self.feed_forward(h_BTD)))

    def _join(self, h_BTD: Tensor, branch_BTD: Tensor) -> Tensor:
        if self.residual_scale != 1:
            branch_BTD = branch_BTD * self.residual_scale
        return add_dropped(h_BTD, branch_BTD, self.dropout_rate, self.training)


class Decoder(nn.Module):
    """`tokenizer`: transformers' own, saved beside the weights."""

    tokenizer: Any

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.architecture = arch
        self.embedding = nn.Embedding(arch.vocab_size, arch.d_model)
        if arch.positions == "learned":
            self.positions = nn.Embedding(arch.max_position_embeddings, arch.d_model)
        self.layers = nn.ModuleList([Layer(arch) for _ in range(arch.num_layers)])
        self.norm = norm_of(arch) if arch.norm_placement == "pre" else nn.Identity()
        self.head = None if arch.tie_embeddings else nn.Linear(arch.d_model, arch.vocab_size, bias=False)
        self.dropout_rate = arch.dropout
        self.label_smoothing = 0.0
        self.attn_implementation: Implementation = "auto"

    def forward(
        self, input_ids: Tensor, labels: Tensor, position_ids: Tensor | None = None, num_bytes: Tensor | None = None
    ) -> TextOutput:
        """`labels` (B, T): the token after each, -100 where none is to be told. `position_ids` (B, T) begin anew with
        each document, and attention stops there. `num_bytes`: of the text that the labels stand for."""
        return head_output(
            self.hidden(input_ids, position_ids),
            self.head_weight,
            labels,
            num_bytes,
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )

    @property
    def head_weight(self) -> Tensor:
        """(V, D)."""
        return self.embedding.weight if self.head is None else self.head.weight

    def hidden(
        self, token_BT: Tensor, position_BT: Tensor | None = None, memory: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """(B, T, D): what the head is given, times logit_scale."""
        arch, num_past = self.architecture, memory[0].length if memory else 0
        place_T = torch.arange(num_past, num_past + token_BT.shape[1], device=token_BT.device)
        h_BTD = self._embedded(token_BT, place_T if position_BT is None else position_BT)
        rotary = None
        if arch.positions == "rotary":
            # Turned by their places in the row: scores depend on distances, and those are within documents.
            cos, sin = rotary_table(num_past + len(place_T), arch.head_width, arch.rope_theta, token_BT.device)
            rotary = cos[num_past:], sin[num_past:]
        mask = None if position_BT is None else packed_mask((position_BT == 0).cumsum(1))
        pattern = Pattern(rotary, mask, self.attn_implementation)
        for index, layer in enumerate(self.layers):
            h_BTD = layer(h_BTD, pattern, None if memory is None else memory[index])
        h_BTD = self.norm(h_BTD)
        return h_BTD if arch.logit_scale == 1 else h_BTD * arch.logit_scale

    def _embedded(self, token_BT: Tensor, position: Tensor) -> Tensor:
        arch = self.architecture
        h_BTD = self.embedding(token_BT)
        if (scale := arch.embedding_scale * (arch.d_model**0.5 if arch.positions == "sinusoidal" else 1.0)) != 1:
            h_BTD = h_BTD * scale
        if arch.positions == "learned":
            h_BTD = h_BTD + self.positions(position)
        elif arch.positions == "sinusoidal":
            cos, sin = rotary_at(position, arch.d_model, arch.rope_theta)
            h_BTD = h_BTD + torch.cat((sin, cos), -1)[..., : arch.d_model].to(h_BTD.dtype)
        return dropout(h_BTD, self.dropout_rate, self.training)

    @property
    def longest(self) -> int:
        """See `text.StepwiseModel`."""
        return self.architecture.max_position_embeddings

    def memory(self, num_tokens: int) -> list[KeyValueCache]:
        """See `text.StepwiseModel`."""
        return [KeyValueCache(num_tokens) for _ in self.layers]

    def next_logits(self, token_1T: Tensor, memory: Sequence[KeyValueCache]) -> Tensor:
        """See `text.StepwiseModel`."""
        return F.linear(self.hidden(token_1T, memory=memory)[0, -1], self.head_weight)
