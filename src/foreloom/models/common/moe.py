"""A mixture of experts: each token is sent to its top-k gated feed-forwards, chosen by a router.

Axes: N tokens, D model width, E experts, K experts a token (top-k), F width of an expert.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.distributed.sharding import Exchange
from foreloom.models.common.expert_kernels import run_experts, run_shared
from foreloom.models.common.layers import GatedFeedForward


class Routing(NamedTuple):
    """What a router decided, for the objectives of `objectives.router`."""

    logits_NE: Tensor
    """float32 and with gradient, before softmax and without `expert_bias`."""
    expert_NK: Tensor
    """int64, the chosen experts, the likeliest first."""


class StackedExperts(nn.Module, ABC):
    """E experts of one form, each of whose parameters is a stack, an entry an expert: the seam of expert parallelism.

    `shapes`: names and shapes of one expert's parameters.
    """

    exchange: Exchange | None = None
    """Where ranks share the experts, of whom each holds some: how tokens reach them."""

    def __init__(self, num_experts: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self._names = tuple(shapes)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(num_experts, *shape)))

    def forward(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor) -> Tensor:
        """sum_k weight[n, k] * expert[n, k](x[n]) -> (N, D). The experts of one token differ.

        An expert without tokens gets a gradient of zero, not none, so that weight decay and momentum act on it.
        """
        if self.exchange is not None and self.exchange.whole is not None:
            return self.run(x_ND, expert_NK, weight_NK, *self.exchange.whole)
        stacks = [getattr(self, name) for name in self._names]
        if self.exchange is None:
            return self.run(x_ND, expert_NK, weight_NK, *stacks)
        own = [self.exchange.own(stack) for stack in stacks]
        return run_shared(self.run, x_ND, expert_NK, weight_NK, own, self.exchange)

    @abstractmethod
    def run(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, *stacks: Tensor) -> Tensor:
        """`forward` by experts with these parameters, which `expert_NK` counts."""


class Experts(StackedExperts):
    """Gated feed-forwards: `gate_up_proj` (E, 2F, D), of each expert the rows of its gate, then those of its up
    projection, and `down_proj` (E, D, F)."""

    def __init__(self, num_experts: int, width: int, expert_width: int) -> None:
        super().__init__(num_experts, {"gate_up_proj": (2 * expert_width, width), "down_proj": (width, expert_width)})

    def run(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, *stacks: Tensor) -> Tensor:
        """See `run_experts`."""
        return run_experts(x_ND, expert_NK, weight_NK, *stacks)


class MixtureOfExperts(nn.Module):
    """sum over the top-k of p_e * expert_e(x), p the softmax over all experts; plus sigmoid(s x) * shared_expert(x).

    No capacity limit: every token reaches its experts, none is dropped. `normalize_weights` divides the k weights by
    their sum. `has_bias` adds a bias to the probabilities for the choice only, as balancing without a loss wants it
    (Wang et al. 2024, "Auxiliary-loss-free load balancing"); see `balance_bias`.
    """

    def __init__(
        self,
        width: int,
        expert_width: int,
        num_experts: int,
        top_k: int,
        *,
        shared_width: int | None = None,
        normalize_weights: bool = False,
        has_bias: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"a token cannot go to {top_k} of {num_experts} experts; choose 1 to {num_experts}.")
        self.top_k = top_k
        self.normalize_weights = normalize_weights
        self.gate = nn.Linear(width, num_experts, bias=False)
        self.experts = Experts(num_experts, width, expert_width)
        self.shared_expert = None if shared_width is None else GatedFeedForward(width, shared_width)
        self.shared_expert_gate = None if shared_width is None else nn.Linear(width, 1, bias=False)
        self.register_buffer("expert_bias", torch.zeros(num_experts) if has_bias else None)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """(..., D) -> (..., D) and the routing of the flattened tokens."""
        x_ND = x.flatten(0, -2)
        routing, weight_NK = self.route(x_ND)
        y_ND = self.experts(x_ND, routing.expert_NK, weight_NK)
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            y_ND = torch.addcmul(y_ND, self.shared_expert_gate(x_ND).sigmoid(), self.shared_expert(x_ND))
        return y_ND.view(*x.shape[:-1], -1), routing

    def route(self, x_ND: Tensor) -> tuple[Routing, Tensor]:
        """The routing and the weights (N, K), in float32 under any autocast: small differences decide."""
        precise = torch.promote_types(x_ND.dtype, torch.float32)
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = F.linear(x_ND.to(precise), self.gate.weight.to(precise))
        biased_NE = None if self.expert_bias is None else logits_NE.detach().softmax(-1) + self.expert_bias
        expert_NK, weight_NK = choose(logits_NE, self.top_k, biased_NE, normalize_weights=self.normalize_weights)
        return Routing(logits_NE, expert_NK), weight_NK


def choose(logits_NE: Tensor, top_k: int, score_NE: Tensor | None, *, normalize_weights: bool) -> tuple[Tensor, Tensor]:
    """The experts (N, K) of each token, the likeliest first, and their weights (N, K), probabilities over all experts.

    The choice goes by the probabilities, or by `score_NE`. `normalize_weights` divides the weights by their sum.
    """
    probability_NE = logits_NE.softmax(-1)
    if score_NE is None:
        weight_NK, expert_NK = probability_NE.topk(top_k, dim=-1)
    else:
        expert_NK = score_NE.topk(top_k, dim=-1).indices
        weight_NK = probability_NE.gather(-1, expert_NK)
    if normalize_weights:
        weight_NK = weight_NK / weight_NK.sum(-1, keepdim=True)
    return expert_NK, weight_NK


@torch.no_grad()
def balance_bias(bias_E: Tensor, load_E: Tensor, rate: float, applied: Tensor) -> None:
    """Move the bias of each expert by `rate` towards an even load, in place; nothing where `applied` is 0.

    `load_E` are the tokens that each expert of the layer got in the global batch. Nothing waits for the device.
    """
    load_E = load_E.to(bias_E.dtype)
    bias_E.add_((load_E.mean() - load_E).sign() * applied, alpha=rate)
