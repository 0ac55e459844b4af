"""What a router of experts is trained and watched by: the balance loss, the z-loss, the load.

Axes: L layers, N tokens, E experts, K experts a token.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def balance_loss(logits_LNE: Tensor, expert_LNK: Tensor, keep_N: Tensor | None = None) -> Tensor:
    """E * sum_k sum_e f[k, e] q[e]: K at perfect balance (Fedus et al. 2021, eq. 4; pooled as Time-MoE does).

    f[k, e] is the share of tokens whose k-th choice is expert e, q[e] the mean probability of e; both are means over
    the tokens of all layers together, taken before the product. The gradient flows through q only. `keep_N` (bool)
    leaves out tokens where it is false; with none kept the loss is 0.
    """
    num_layers, num_tokens, num_experts = logits_LNE.shape
    probability_LNE = logits_LNE.float().softmax(-1)
    if keep_N is None:
        num_kept = torch.full((), num_tokens, dtype=torch.float32, device=logits_LNE.device)
    else:
        num_kept = keep_N.sum().clamp(min=1).float()
        probability_LNE = torch.where(keep_N[:, None], probability_LNE, 0.0)
    # The sum over k may be taken first: what is left of f are the tokens of each expert.
    chosen_E = expert_load(expert_LNK, num_experts, keep_N).sum(0).float() / (num_layers * num_kept)
    mean_E = probability_LNE.sum((0, 1)) / (num_layers * num_kept)
    return num_experts * torch.dot(chosen_E, mean_E)


def share_balance(probability_E: Tensor, load_E: Tensor, num_samples: Tensor) -> Tensor:
    """E * sum_e f_e P_e: 1 at even use, E where every sample goes to one expert alone (Fedus et al. 2021, eq. 4).

    f_e = load_e / sum(load) is the share of the choices that fell on e, P_e = probability_e / num_samples the mean of
    its probability, `probability_E` being a sum over samples. Of a part of a batch, with the load and number of the
    whole, it is that part's share of the loss: parts add up. The gradient flows through the probabilities only.
    """
    share_E = load_E / load_E.sum().clamp(min=1)
    return len(share_E) * torch.dot(share_E, probability_E / num_samples.clamp(min=1))


def router_z_loss(logits_LNE: Tensor, keep_N: Tensor | None = None) -> Tensor:
    """Mean of logsumexp(logits)^2, which keeps logits small (Zoph et al. 2022, ST-MoE, eq. 5); 0 with none kept."""
    square_LN = logits_LNE.float().logsumexp(-1).square()
    if keep_N is None:
        return square_LN.mean()
    return torch.where(keep_N, square_LN, 0.0).sum() / (len(square_LN) * keep_N.sum().clamp(min=1))


def expert_load(expert_LNK: Tensor, num_experts: int, keep_N: Tensor | None = None) -> Tensor:
    """Tokens that each expert of each layer got, int64 (L, E); `keep_N` (bool) leaves out tokens."""
    num_layers, num_tokens, top_k = expert_LNK.shape
    ones = expert_LNK.new_ones(1, 1, 1) if keep_N is None else keep_N.long().view(1, -1, 1)
    ones = ones.expand(num_layers, num_tokens, top_k).flatten(1)
    return expert_LNK.new_zeros(num_layers, num_experts).scatter_add(1, expert_LNK.flatten(1), ones)


def load_figures(load_LE: np.ndarray) -> dict[str, float]:
    """`expert_entropy`, the entropy of a layer's load over log E (1 is even, 0 one expert for all), the mean over
    layers; `dead_experts`, how many experts of all layers got no token. One expert alone is even."""
    num_experts = load_LE.shape[1]
    share_LE = load_LE / np.maximum(load_LE.sum(1, keepdims=True), 1)
    entropy_L = -(share_LE * np.log(np.where(share_LE > 0, share_LE, 1.0))).sum(1)
    return {
        "expert_entropy": float(entropy_L.mean() / np.log(num_experts)) if num_experts > 1 else 1.0,
        "dead_experts": float((load_LE == 0).sum()),
    }
