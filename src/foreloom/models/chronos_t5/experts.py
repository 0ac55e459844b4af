"""Sample-level experts: a router reads the encoded context and picks, for the whole series, who forecasts it.

Axes: B samples (series), R rows of the decoder (B, or several a sample), S tokens of the context, T tokens of the
forecast, D model width, V vocabulary, E experts, K experts a sample.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.moments import RunningMoments
from foreloom.models.common.dropout import dropout, relu_dropout_
from foreloom.models.common.initialize import normal_by_name
from foreloom.models.common.moe import choose

ROUTER_STD = 0.02
"""Standard deviation of the router's initial weights: close to an even choice."""


class SampleRouting(NamedTuple):
    """Who forecasts what. Known before the first step of a forecast, and the same for all of them."""

    logits_BE: Tensor
    """float32, before softmax and without a balancing bias."""
    expert_BK: Tensor
    """int64, the chosen experts, the likeliest first."""
    weight_BK: Tensor
    """float32, their probabilities divided by their sum."""
    pooled_BD: Tensor
    """float32, the mean states that the router read, without a gradient."""


class ContextRouter(nn.Module):
    """Mean of the encoder's states where the context has tokens -> Linear -> ReLU -> dropout -> Linear -> logits.

    Such means have nearly all in common, so that a young router would send every series to the same experts; what it
    reads is therefore standardised by running moments.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.input_moments = RunningMoments(arch.d_model)
        self.hidden_layer = nn.Linear(arch.d_model, arch.router_hidden_dim)
        self.output_layer = nn.Linear(arch.router_hidden_dim, arch.num_experts)
        self.dropout_rate = arch.dropout_rate

    def forward(self, pooled_BD: Tensor) -> Tensor:
        """float32 (B, D) -> (B, E), whatever the autocast: small differences decide."""
        with torch.autocast(pooled_BD.device.type, enabled=False):
            hidden = self.hidden_layer(self.input_moments(pooled_BD))
            return self.output_layer(relu_dropout_(hidden, self.dropout_rate, self.training))


class MoEExpertHead(nn.Module):
    """LayerNorm(h + FF(h)), then a prediction head of its own; FF is four times as wide and has a ReLU."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        width = arch.d_model
        self.hidden_layer = nn.Linear(width, 4 * width)
        self.output_layer = nn.Linear(4 * width, width)
        self.layer_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, arch.n_tokens, bias=False)
        self.dropout_rate = arch.dropout_rate

    def forward(self, h_RTD: Tensor) -> Tensor:
        """(R, T, D) -> logits (R, T, V)."""
        hidden = relu_dropout_(self.hidden_layer(h_RTD), self.dropout_rate, self.training)
        changed = dropout(self.output_layer(hidden), self.dropout_rate, self.training)
        return self.head(self.layer_norm(h_RTD + changed))


class SampleExperts(nn.Module):
    """sum over a sample's experts of weight * logits, each expert run on its samples only.

    Who is chosen goes by `arch.router_choice`: the probabilities; the probabilities and a bias on each expert that
    follows its load (Wang et al. 2024); or each expert's logit against its own running mean and deviation, which gives
    every expert its share of the samples from the start, as far as they differ.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.router = ContextRouter(arch)
        self.experts = nn.ModuleList([MoEExpertHead(arch) for _ in range(arch.num_experts)])
        self.top_k = arch.num_active_experts
        self.logit_moments = RunningMoments(arch.num_experts) if arch.router_choice == "standardized" else None
        has_bias = arch.router_choice == "biased"
        self.register_buffer("expert_bias", torch.zeros(arch.num_experts) if has_bias else None)

    def route(self, hidden_BSD: Tensor, mask_BS: Tensor | None) -> SampleRouting:
        """From the encoder's states (B, S, D) and which of them stand for something observed."""
        with torch.autocast(hidden_BSD.device.type, enabled=False):
            pooled_BD = masked_mean(hidden_BSD.float(), mask_BS)
        logits_BE = self.router(pooled_BD)
        score_BE = None
        if self.logit_moments is not None:
            score_BE = self.logit_moments(logits_BE.detach())
        elif self.expert_bias is not None:
            score_BE = logits_BE.detach().softmax(-1) + self.expert_bias
        expert_BK, weight_BK = choose(logits_BE, self.top_k, score_BE, normalize_weights=True)
        return SampleRouting(logits_BE, expert_BK, weight_BK, pooled_BD.detach())

    def forward(self, h_RTD: Tensor, routing: SampleRouting) -> Tensor:
        """Decoder states (R, T, D) -> logits (R, T, V). R / B rows in a row share a sample's routing."""
        copies = len(h_RTD) // len(routing.expert_BK)
        expert_RK, weight_RK = (x.repeat_interleave(copies, 0) for x in (routing.expert_BK, routing.weight_BK))
        mixed = None
        for number, expert in enumerate(self.experts):
            row, place = (expert_RK == number).nonzero(as_tuple=True)
            if not len(row):
                continue
            logits = expert(h_RTD[row])
            logits = logits * weight_RK[row, place, None, None].to(logits.dtype)
            mixed = logits.new_zeros(len(h_RTD), *logits.shape[1:]) if mixed is None else mixed
            mixed = mixed.index_add_(0, row, logits)
        assert mixed is not None
        return mixed


def masked_mean(hidden_BSD: Tensor, mask_BS: Tensor | None) -> Tensor:
    """(B, D): the mean over tokens that are there; over all where none is."""
    if mask_BS is None:
        return hidden_BSD.mean(1)
    weight_BS = mask_BS.to(hidden_BSD.dtype)
    return torch.einsum("bsd,bs->bd", hidden_BSD, weight_BS / weight_BS.sum(1, keepdim=True))


def start_balance(moe: SampleExperts) -> None:
    """Moments that know of nothing, biases of 0."""
    for module in moe.modules():
        if isinstance(module, RunningMoments):
            module.reset()
    if moe.expert_bias is not None:
        moe.expert_bias.zero_()


def initialize_experts(name: str, parameter: Tensor, seed: int) -> None:
    """Fill one parameter: the router near an even choice, experts at 1/sqrt(fan in), norms at 1, biases at 0."""
    if name.endswith("layer_norm.weight"):
        nn.init.ones_(parameter)
    elif name.endswith(".bias"):
        nn.init.zeros_(parameter)
    else:
        std = ROUTER_STD if ".router." in name else parameter.shape[1] ** -0.5
        normal_by_name(parameter, name, seed, std)


def num_parameters(arch: Architecture) -> int:
    """Of router and experts: E (8 D^2 + 5 D + 2 D + D V) + (D r + r + r E + E)."""
    width, hidden, experts = arch.d_model, arch.router_hidden_dim, arch.num_experts
    expert = 8 * width**2 + 5 * width + 2 * width + width * arch.n_tokens
    return experts * expert + (width * hidden + hidden + hidden * experts + experts)
