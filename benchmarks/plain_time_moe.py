"""Time-MoE written plainly, the peer of benchmarks/time_moe.py: every expert in a Python loop over the tokens it got,
attention with a 4-D additive mask and a softmax in float32, a cache that is concatenated, as the official code works.

Axes: B rows, S steps, D model width, N = B*S tokens, E experts, K experts a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.time_moe.architecture import Architecture
from foreloom.models.time_moe.checkpoint import official_views

Cache = list[tuple[Tensor, Tensor] | None]


class Norm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * y.to(x.dtype)


class Gated(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class PlainAttention(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        key_width = arch.num_key_value_heads * arch.head_width
        self.q_proj = nn.Linear(arch.hidden_size, arch.hidden_size)
        self.k_proj = nn.Linear(arch.hidden_size, key_width)
        self.v_proj = nn.Linear(arch.hidden_size, key_width)
        self.o_proj = nn.Linear(arch.hidden_size, arch.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: Cache, layer: int) -> Tensor:
        heads = lambda y: y.unflatten(-1, (-1, self.arch.head_width)).transpose(1, 2)
        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        q, k = q * cos + rotated(q) * sin, k * cos + rotated(k) * sin
        if (old := cache[layer]) is not None:
            k, v = torch.cat([old[0], k], dim=2), torch.cat([old[1], v], dim=2)
        cache[layer] = k, v
        repeats = self.arch.num_attention_heads // self.arch.num_key_value_heads
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        scores = torch.matmul(q, k.transpose(2, 3)) / self.arch.head_width**0.5 + mask
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        return self.o_proj(torch.matmul(weights, v).transpose(1, 2).flatten(2))


def rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


class PlainExperts(nn.Module):
    """The mixture of experts, one expert after the other."""

    def __init__(self, width: int, expert_width: int, num_experts: int, top_k: int, shared_width: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(width, num_experts, bias=False)
        self.experts = nn.ModuleList([Gated(width, expert_width) for _ in range(num_experts)])
        self.shared_expert = Gated(width, shared_width)
        self.shared_expert_gate = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result and the router's logits (N, E)."""
        tokens = x.flatten(0, 1)
        logits = self.gate(tokens)
        weight, chosen = F.softmax(logits, dim=1, dtype=torch.float).topk(self.top_k, dim=-1)
        weight = weight.to(tokens.dtype)
        y = torch.zeros_like(tokens)
        mask = F.one_hot(chosen, num_classes=len(self.experts)).permute(2, 1, 0)
        for index, expert in enumerate(self.experts):
            slot, token = torch.where(mask[index])
            part = expert(tokens[token]) * weight[token, slot, None]
            y.index_add_(0, token, part.to(y.dtype))
        y = y + F.sigmoid(self.shared_expert_gate(tokens)) * self.shared_expert(tokens)
        return y.view_as(x), logits


class PlainLayer(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.self_attn = PlainAttention(arch)
        self.ffn_layer = PlainExperts(
            arch.hidden_size, arch.expert_width, arch.num_experts, arch.num_experts_per_tok, arch.intermediate_size
        )
        self.input_layernorm = Norm(arch.hidden_size, arch.rms_norm_eps)
        self.post_attention_layernorm = Norm(arch.hidden_size, arch.rms_norm_eps)

    def forward(self, h: Tensor, *attention: object) -> tuple[Tensor, Tensor]:
        h = h + self.self_attn(self.input_layernorm(h), *attention)
        y, logits = self.ffn_layer(self.post_attention_layernorm(h))
        return h + y, logits


class PlainTimeMoe(nn.Module):
    """Training loss and greedy generation of a Time-MoE with experts in every layer."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.gate_layer = nn.Linear(1, arch.hidden_size, bias=False)
        self.emb_layer = nn.Linear(1, arch.hidden_size, bias=False)
        self.layers = nn.ModuleList([PlainLayer(arch) for _ in range(arch.num_hidden_layers)])
        self.norm = Norm(arch.hidden_size, arch.rms_norm_eps)
        self.heads = nn.ModuleList([nn.Linear(arch.hidden_size, h, bias=False) for h in arch.horizon_lengths])

    def forward(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
        """(B, S) -> final hidden states (B, S, D) and the logits of all routers (L * N, E)."""
        cache = [None] * len(self.layers) if cache is None else cache
        num_past = 0 if cache[0] is None else cache[0][0].shape[2]
        (num_rows, num_steps), num_keys = x.shape, num_past + x.shape[1]
        h = F.silu(self.gate_layer(x[..., None])) * self.emb_layer(x[..., None])
        cos, sin = self.rotary(torch.arange(num_past, num_keys, device=x.device), h.dtype)
        mask = torch.full((num_steps, num_keys), torch.finfo(h.dtype).min, dtype=h.dtype, device=x.device)
        mask = mask.triu(num_past + 1)[None, None].expand(num_rows, 1, -1, -1)
        logits = []
        for index, layer in enumerate(self.layers):
            h, router = layer(h, cos, sin, mask, cache, index)
            logits.append(router)
        return self.norm(h), torch.cat(logits)

    def rotary(self, position: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        width = self.arch.head_width
        frequency = self.arch.rope_theta ** (-torch.arange(0, width, 2, device=position.device) / width)
        angle = torch.outer(position.float(), frequency).repeat(1, 2)
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def loss(self, x: Tensor, labels: Tensor, loss_masks: Tensor) -> Tensor:
        """Mean over horizons of the masked Huber loss, plus the weighted balance loss."""
        hidden, logits = self(x)
        parts = []
        for head, horizon in zip(self.heads, self.arch.horizon_lengths, strict=True):
            windows = lambda y, h=horizon: F.pad(y, (0, h - 1)).unfold(1, h, 1)
            huber = F.huber_loss(head(hidden).float(), windows(labels), reduction="none", delta=2.0)
            mask = windows(loss_masks)
            parts.append((huber * mask).sum() / mask.sum())
        probability = F.softmax(logits.float(), dim=-1)
        chosen = F.one_hot(probability.topk(self.arch.num_experts_per_tok, dim=-1).indices, self.arch.num_experts)
        share = chosen.float().mean(0)
        balance = self.arch.num_experts * (share * probability.mean(0)).sum()
        return torch.stack(parts).mean() + self.arch.router_aux_loss_factor * balance

    @torch.no_grad()
    def generate(self, x: Tensor, num_steps: int) -> Tensor:
        """(B, S) -> (B, S + num_steps), by the longest head that fits."""
        cache: Cache = [None] * len(self.layers)
        out = new = x
        while (left := x.shape[1] + num_steps - out.shape[1]) > 0:
            head = max(i for i, h in enumerate(self.arch.horizon_lengths) if i == 0 or h <= left)
            new = self.heads[head](self(new, cache)[0])[:, -1]
            out = torch.cat([out, new], dim=1)
        return out[:, : x.shape[1] + num_steps]


def plain_copy(model: nn.Module) -> PlainTimeMoe:
    """The plain model with the weights of ours, on its device."""
    plain = PlainTimeMoe(model.architecture)
    rename = lambda name: (
        name.removeprefix("model.").removeprefix("embed_layer.").removeprefix("lm_").replace(".out_layer", "")
    )
    plain.load_state_dict({rename(name): value for name, value in official_views(model.state_dict()).items()})
    return plain.to(next(model.parameters()).device)
