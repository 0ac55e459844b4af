"""Sample-level experts: a router reads the encoded context and picks, for the whole series, who forecasts it.

Axes: B samples (series), R rows of the decoder (B, or several a sample), S tokens of the context, T tokens of the
forecast, D model width, V vocabulary, E experts, K experts a sample, N numbers of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.common.dropout import dropout, relu_dropout_
from foreloom.models.common.expert_kernels import order_by_expert
from foreloom.models.common.initialize import normal_by_name
from foreloom.models.common.moe import StackedExperts, balance_bias, choose
from foreloom.models.family import Tally
from foreloom.objectives.loss import sum_dtype
from foreloom.objectives.router import load_figures

MOMENTUM = 0.2
"""Share of the newest global batch, once there were five; before, all count alike."""
_LEAST_VARIANCE = 1e-12
ROUTER_STD = 0.02
"""Standard deviation of the router's initial weights: close to an even choice."""


class RunningMoments(nn.Module):
    """Standardises what a router sees by running moments, which whole global batches move: so no sample has a say
    in what becomes of its neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("num_updates", torch.zeros(()))

    def forward(self, x_BN: Tensor) -> Tensor:
        """(B, N): mean 0 and variance 1, as far as these samples are like those before."""
        return (x_BN - self.mean) * self.variance.clamp(min=_LEAST_VARIANCE).rsqrt()

    @torch.no_grad()
    def follow(self, sums: Tensor, applied: Tensor) -> None:
        """Move towards a global batch, whose `moment_sums` these are; nothing where `applied` is 0.

        What a skipped step saw may not be finite. A first sample alone has no variance, so that of before stays.
        """
        sums = torch.where(applied > 0, sums, 0.0)
        sum_N, square_N, count = sums[: len(self.mean)], sums[len(self.mean) : -1], sums[-1]
        share = (count > 0) / (self.num_updates + 1).clamp(max=1 / MOMENTUM)
        has_spread = (count > 1) | (self.num_updates > 0)
        mean_N = sum_N / count.clamp(min=1)
        self.mean.add_(share * (mean_N - self.mean))
        # Around the running mean as it is from now on.
        around_N = self.mean.to(sums.dtype)
        off_N = square_N / count.clamp(min=1) - 2 * mean_N * around_N + around_N.square()
        self.variance.add_(share * has_spread * (off_N - self.variance))
        self.num_updates.add_(share.sign())

    def reset(self) -> None:
        """What is known of nothing: mean 0, variance 1."""
        self.mean.zero_()
        self.variance.fill_(1.0)
        self.num_updates.zero_()


def moment_sums(x_BN: Tensor, keep_B: Tensor) -> Tensor:
    """(2 N + 1,), which add up over micro-batches and ranks: sums, sums of squares, number of kept samples.

    In float64: means lie tens of deviations from 0, and a variance that is the difference of two such squares would
    have lost the digits by which every cut of a batch agrees.
    """
    precise = sum_dtype(x_BN.device)
    kept_BN = torch.where(keep_B[:, None], x_BN.detach().to(precise), 0.0)
    return torch.cat([kept_BN.sum(0), kept_BN.square().sum(0), keep_B.sum().to(precise).reshape(1)])


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


class ExpertHeads(StackedExperts):
    """E times LayerNorm(h + FF(h)), then a prediction head of its own; FF is four times as wide and has a ReLU.

    Parameters are stacks, which are published one by one: see `published_views`.
    """

    def __init__(self, arch: Architecture) -> None:
        width, hidden = arch.d_model, 4 * arch.d_model
        shapes = {
            "hidden_layer_weight": (hidden, width),
            "hidden_layer_bias": (hidden,),
            "output_layer_weight": (width, hidden),
            "output_layer_bias": (width,),
            "layer_norm_weight": (width,),
            "layer_norm_bias": (width,),
            "head_weight": (arch.n_tokens, width),
        }
        super().__init__(arch.num_experts, shapes)
        self.dropout_rate = arch.dropout_rate

    def run(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, *stacks: Tensor) -> Tensor:
        """(N, T, D) -> logits (N, T, V). Each expert is run on its rows only; an idle one on none, so that its gradient
        is zero and what ranks send one another comes back."""
        order = order_by_expert(expert_NK)
        sizes = order.expert_M.bincount(minlength=len(stacks[0])).tolist()
        weight_M11 = weight_NK.flatten()[order.pair_M, None, None]
        its = zip(*(stack.unbind() for stack in stacks), strict=True)
        mixed = None
        for parameters, row, weight in zip(its, order.token_M.split(sizes), weight_M11.split(sizes), strict=True):
            logits = self.run_one(x_ND[row], parameters)
            logits = logits * weight.to(logits.dtype)
            mixed = logits.new_zeros(len(x_ND), *logits.shape[1:]) if mixed is None else mixed
            mixed = mixed.index_add_(0, row, logits)
        assert mixed is not None
        return mixed

    def run_one(self, h_RTD: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """(R, T, D) -> logits (R, T, V), by one expert's parameters."""
        hidden_weight, hidden_bias, output_weight, output_bias, norm_weight, norm_bias, head_weight = parameters
        hidden = relu_dropout_(F.linear(h_RTD, hidden_weight, hidden_bias), self.dropout_rate, self.training)
        changed = dropout(F.linear(hidden, output_weight, output_bias), self.dropout_rate, self.training)
        return F.linear(F.layer_norm(h_RTD + changed, norm_weight.shape, norm_weight, norm_bias), head_weight)


class SampleExperts(nn.Module):
    """sum over a sample's experts of weight * logits, each expert run on its samples only.

    Who is chosen goes by `arch.router_choice`: the probabilities; the probabilities and a bias on each expert that
    follows its load (Wang et al. 2024); or each expert's logit against its own running mean and deviation, which gives
    every expert its share of the samples from the start, as far as they differ.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.router = ContextRouter(arch)
        self.experts = ExpertHeads(arch)
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
        return self.experts(h_RTD, *(x.repeat_interleave(copies, 0) for x in (routing.expert_BK, routing.weight_BK)))


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
        normal_by_name(parameter, name, seed, expert_std(name, parameter))


def expert_std(name: str, parameter: Tensor) -> float:
    """Standard deviation of a matrix of the router or of an expert, or of a stack of these."""
    return ROUTER_STD if ".router." in name else parameter.shape[-1] ** -0.5


def published_views(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values with experts one by one, `moe.experts.0.head.weight` of the stack `moe.experts.head_weight`, in
    the same memory."""
    views: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        experts, is_stack, of = name.partition("moe.experts.")
        if is_stack:
            layer, _, kind = of.rpartition("_")
            views |= {f"{experts}{is_stack}{i}.{layer}.{kind}": one for i, one in enumerate(tensor.detach())}
        else:
            views[name] = tensor.detach()
    return views


def needs_survey(module: nn.Module) -> bool:
    """Does the objective of a part of a global batch depend on the whole? The balance loss and the z-loss, both means
    over its samples beside a sum over labels, do."""
    arch = Architecture.of(module)
    return arch.use_moe and bool(arch.load_balancing_weight > 0 or module.router_z_loss_factor)


def after_update(module: nn.Module, tally: Tally, applied: Tensor) -> None:
    """What the router knows of its input and output follows the global batch; biases, where there are any, its load."""
    moe = module.moe
    if moe is None:
        return
    rate = module.balance_rate
    assert isinstance(moe, SampleExperts) and isinstance(rate, float)
    moe.router.input_moments.follow(tally["router_input"], applied)
    if moe.logit_moments is not None:
        moe.logit_moments.follow(tally["router_logits"], applied)
    if moe.expert_bias is not None:
        balance_bias(moe.expert_bias, tally["expert_load"][0], rate, applied)


def figures(module: nn.Module, tally: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`train_ce_loss`, `train_load_loss` (1 at even use), `train_total_loss`, and how evenly experts are used."""
    means = {
        f"train_{name}": float(tally[name][0] / max(tally[name][1], 1))
        for name in ("ce_loss", "load_loss", "total_loss", "router_z_loss")
        if name in tally
    }
    return means | (load_figures(tally["expert_load"]) if "expert_load" in tally else {})
