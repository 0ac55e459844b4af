"""What happens to Time-MoE's routers beside the optimizer: their balancing without a loss, and their figures.

Axes: L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from foreloom.models.common.moe import MixtureOfExperts, balance_bias
from foreloom.models.family import Tally
from foreloom.models.time_moe.architecture import architecture_of_module
from foreloom.objectives.router import load_figures


def after_update(module: nn.Module, tally: Tally, applied: Tensor) -> None:
    """Move the routers' biases towards an even load of the global batch, where `balance: bias` was asked for."""
    rate = module.balance_rate
    assert isinstance(rate, float)
    if not rate:
        return
    routers = [layer for layer in module.modules() if isinstance(layer, MixtureOfExperts)]
    for router, load_E in zip(routers, tally["expert_load"], strict=True):
        assert router.expert_bias is not None
        balance_bias(router.expert_bias, load_E, rate, applied)


def figures(module: nn.Module, tally: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means since the last log line, and how evenly the experts were used.

    `aux_excess` is the auxiliary loss above the number of experts a token, its value where all experts are used evenly.
    """
    means = {name: float(entry[0] / max(entry[1], 1)) for name, entry in tally.items() if name != "expert_load"}
    if "expert_load" not in tally:
        return means
    excess = means["aux_loss"] - architecture_of_module(module).num_experts_per_tok
    return means | {"aux_excess": excess} | load_figures(tally["expert_load"])
