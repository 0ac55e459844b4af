"""The causal variant: a decoder as GPT-2 (Radford et al. 2019) that reads context and horizon as one sequence.

Axes: B rows, N samples a row, R = B*N rows while decoding, S tokens, T new tokens, D model width, H heads, K width of a
head, V vocabulary. Module names are those of transformers' GPT2LMHeadModel.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.objective import plain_losses
from foreloom.models.chronos_t5.tokenizer import Tokenizer
from foreloom.models.common.attention import attend, attend_shared, causal_mask
from foreloom.models.common.dropout import add_dropped, dropout
from foreloom.models.common.initialize import normal_by_name
from foreloom.models.common.t5.attention import DecoderCache
from foreloom.models.common.t5.stack import visible
from foreloom.models.family import Tally
from foreloom.objectives.loss import Loss

BLOCKS = ("transformer.h.[0-9]", "transformer.h.[0-9][0-9]")
"""For `Sharding`."""


class CausalMemory(NamedTuple):
    """A context but its last token, from which any number of forecasts can be decoded."""

    keys: tuple[Tensor, ...]
    """Of each layer, (B, H, S, K)."""
    values: tuple[Tensor, ...]
    mask_BS: Tensor | None
    length_B: Tensor
    """Tokens that are there."""
    routing: None = None


class CausalOutput(NamedTuple):
    """What forward returns; a tuple, so that hooks of sharded modules can walk it."""

    logits: Tensor | None = None
    """(B, S, V) or (R, T, V): the token after each."""
    loss: Tensor | None = None
    """Scalar: mean cross entropy of the labels, each from the tokens before it."""
    objective: Loss | None = None
    memory: CausalMemory | None = None
    last_hidden_state: Tensor | None = None
    tally: Tally = MappingProxyType({})


class Projection(nn.Module):
    """x W + b; GPT-2 keeps its matrices (in, out)."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_width, out_width))
        self.bias = nn.Parameter(torch.empty(out_width))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t(), self.bias)


class SelfAttention(nn.Module):
    """Queries, keys and values by one projection."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.c_attn = Projection(arch.d_model, 3 * arch.d_model)
        self.c_proj = Projection(arch.d_model, arch.d_model)
        self.num_heads = arch.num_heads
        self.scale = arch.d_kv**-0.5
        self.dropout_rate = arch.dropout_rate

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v, (B, H, T, K) each."""
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.c_attn(x_BTD).chunk(3, dim=-1)
        )
        return q, k, v

    def merge(self, mixed_BHTK: Tensor) -> Tensor:
        return self.c_proj(mixed_BHTK.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """The GELU by its tanh approximation."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.c_fc = Projection(arch.d_model, arch.d_ff)
        self.c_proj = Projection(arch.d_ff, arch.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(arch.d_model, arch.layer_norm_epsilon)
        self.attn = SelfAttention(arch)
        self.ln_2 = nn.LayerNorm(arch.d_model, arch.layer_norm_epsilon)
        self.mlp = FeedForward(arch)
        self.dropout_rate = arch.dropout_rate

    def forward(self, h_BSD: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The residual stream (B, S, D), and this layer's keys and values. Without a mask: causal."""
        q, k, v = self.attn.project(self.ln_1(h_BSD))
        rate = self.dropout_rate if self.training else 0.0
        mixed = attend(q, k, v, mask=mask, is_causal=mask is None, scale=self.attn.scale, dropout=rate)
        return self._finish(h_BSD, mixed), k, v

    def step(self, h_R1D: Tensor, memory: tuple[Tensor, Tensor], mask_BS: Tensor | None, cache: DecoderCache,
             layer: int) -> Tensor:  # fmt: skip
        """(R, 1, D) of one new token a row, which sees its row's context and the tokens in the cache."""
        q, k, v = self.attn.project(self.ln_1(h_R1D))
        own = cache.own[layer].append(k, v)
        return self._finish(h_R1D, attend_shared(q, memory, own, mask_BS, scale=self.attn.scale))

    def _finish(self, h_BSD: Tensor, mixed_BHSK: Tensor) -> Tensor:
        h_BSD = add_dropped(h_BSD, self.attn.merge(mixed_BHSK), self.dropout_rate, self.training)
        return add_dropped(h_BSD, self.mlp(self.ln_2(h_BSD)), self.dropout_rate, self.training)


class Transformer(nn.Module):
    """Embeddings, blocks and a final norm."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.wte = nn.Embedding(arch.n_tokens, arch.d_model)
        self.wpe = nn.Embedding(arch.num_sequence_tokens, arch.d_model)
        self.h = nn.ModuleList([Block(arch) for _ in range(arch.num_layers)])
        self.ln_f = nn.LayerNorm(arch.d_model, arch.layer_norm_epsilon)


class CausalChronosModel(nn.Module):
    """Chronos with `model_type: causal`; its state dict carries transformers' names for GPT-2."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.architecture = arch
        self.tokenizer = Tokenizer(arch)
        self.moe = None
        self.transformer = Transformer(arch)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        *,
        memory: CausalMemory | None = None,
        cache: DecoderCache | None = None,
        output_hidden_states: bool = False,
    ) -> CausalOutput:
        """Score the token after each, or encode a context to decode forecasts from.

        input_ids (B, S), attention_mask (B, S): 0 hides a token, which has no position either; give it where rows are
        padded at the left, padding at the right needs none. labels (B, S): the tokens again, -100 where one does not
        count. With neither labels nor `output_hidden_states` the answer is a `memory`; with a memory and a cache,
        decoder_input_ids (R, 1) is one token more a row.
        """
        if memory is not None:
            assert decoder_input_ids is not None and cache is not None
            return CausalOutput(logits=self._decode(decoder_input_ids, memory, cache))
        assert input_ids is not None
        if labels is None and not output_hidden_states:
            return CausalOutput(memory=self._remember(input_ids, attention_mask))
        hidden_BSD, _ = self._read(input_ids, attention_mask)
        if labels is None:
            return CausalOutput(last_hidden_state=hidden_BSD)
        logits = F.linear(hidden_BSD, self.transformer.wte.weight)
        losses = plain_losses(logits[:, :-1], labels[:, 1:])
        return CausalOutput(logits=logits, loss=losses.loss, objective=losses.objective)

    def start_tokens(self, id_BS: Tensor) -> Tensor:
        """(B,): what decoding begins with, the context's last token."""
        return id_BS[:, -1]

    def _read(self, id_BS: Tensor, mask_BS: Tensor | None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Final states (B, S, D), and keys and values of each layer."""
        position: Tensor = torch.arange(id_BS.shape[1], device=id_BS.device)
        mask = None
        if mask_BS is not None:
            position = ((mask_BS > 0).cumsum(1) - 1).clamp(min=0)
            seen = visible(mask_BS)
            assert seen is not None
            itself = torch.eye(id_BS.shape[1], dtype=torch.bool, device=id_BS.device)  # so that all see something
            mask = (causal_mask(id_BS.shape[1], id_BS.shape[1], id_BS.device) & seen[:, None] | itself)[:, None]
        h_BSD = self._embed(id_BS, position)
        kept = []
        for block in self.transformer.h:
            h_BSD, k, v = block(h_BSD, mask)
            kept.append((k, v))
        return self.transformer.ln_f(h_BSD), kept

    def _remember(self, id_BS: Tensor, mask_BS: Tensor | None) -> CausalMemory:
        id_BS, mask_BS = id_BS[:, :-1], None if mask_BS is None else mask_BS[:, :-1]
        _, kept = self._read(id_BS, mask_BS)
        keys, values = zip(*kept, strict=True)
        length_B = id_BS.new_full((len(id_BS),), id_BS.shape[1]) if mask_BS is None else (mask_BS > 0).sum(1)
        return CausalMemory(keys, values, None if mask_BS is None else mask_BS > 0, length_B)

    def _decode(self, id_R1: Tensor, memory: CausalMemory, cache: DecoderCache) -> Tensor:
        """Logits (R, 1, V) after one more token a row."""
        copies = len(id_R1) // len(memory.length_B)
        position_R1 = (memory.length_B.repeat_interleave(copies) + cache.length)[:, None]
        h_R1D = self._embed(id_R1, position_R1)
        for i, block in enumerate(self.transformer.h):
            assert isinstance(block, Block)
            h_R1D = block.step(h_R1D, (memory.keys[i], memory.values[i]), memory.mask_BS, cache, i)
        return F.linear(self.transformer.ln_f(h_R1D), self.transformer.wte.weight)

    def _embed(self, id_BS: Tensor, position: Tensor) -> Tensor:
        h_BSD = self.transformer.wte(id_BS) + self.transformer.wpe(position)
        return dropout(h_BSD, self.architecture.dropout_rate, self.training)


def initialize_causal(name: str, parameter: Tensor, arch: Architecture, seed: int) -> None:
    """Fill one parameter, as transformers does: N(0, std^2), what writes into the residual stream less by its depth."""
    if ".ln_" in name:
        nn.init.constant_(parameter, float(name.endswith("weight")))
    elif name.endswith(".bias"):
        nn.init.zeros_(parameter)
    else:
        normal_by_name(parameter, name, seed, causal_std(name, arch))


def causal_std(name: str, arch: Architecture) -> float:
    """Standard deviation of a matrix."""
    depth = (2 * arch.num_layers) ** -0.5 if name.endswith("c_proj.weight") else 1.0
    return arch.initializer_factor * depth
