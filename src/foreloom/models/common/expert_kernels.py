"""How tokens reach their experts and come back, as fast as each device can.

Axes: N tokens, D model width, E experts, K experts a token, F width of an expert, M = N*K pairs sorted by expert.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def run_experts(x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor) -> Tensor:
    """sum_k weight[n, k] * down_e(silu(gate_e x[n]) * up_e x[n]) with e = expert[n, k] -> (N, D)."""
    num_experts, top_k = len(gate_up_EGD), expert_NK.shape[1]
    expert_M, order_M = expert_NK.flatten().sort(stable=True)
    token_M = order_M // top_k
    counts = expert_M.bincount(minlength=num_experts).tolist()
    x_MD, weight_M1 = x_ND[token_M], weight_NK.flatten()[order_M, None].to(x_ND.dtype)
    parts = []
    for expert, x in enumerate(x_MD.split(counts)):
        gate, up = F.linear(x, gate_up_EGD[expert]).chunk(2, dim=-1)
        parts.append(F.linear(F.silu(gate) * up, down_EDF[expert]))
    y_MD = torch.cat(parts) * weight_M1
    return y_MD.new_zeros(x_ND.shape).index_add(0, token_M, y_MD)
