"""What happens to Chronos-T5's router beside the optimizer, and what the log says of it.

Axes: E experts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from foreloom.models.chronos_t5.architecture import architecture_of_module
from foreloom.models.chronos_t5.experts import SampleExperts
from foreloom.models.common.moe import balance_bias
from foreloom.models.family import Tally
from foreloom.objectives.router import load_figures


def needs_survey(module: nn.Module) -> bool:
    """Does the objective of a part of a global batch depend on the whole? The balance loss does."""
    arch = architecture_of_module(module)
    return arch.use_moe and arch.load_balancing_weight > 0


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
