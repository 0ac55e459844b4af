"""What Chronos-Bolt minimises: twice the pinball loss, the mean over its levels.

Axes: B rows, H steps of the head.
"""

from __future__ import annotations

from torch import Tensor

from foreloom.objectives.loss import Loss
from foreloom.objectives.quantile import Reduction


def published_loss(loss_BH: Tensor) -> Tensor:
    """Scalar, as chronos-forecasting divides: summed over the horizon, the mean over rows, with a target or without."""
    return loss_BH.sum() / len(loss_BH)


def objective_of(loss_BH: Tensor, observed_BH: Tensor, reduction: Reduction) -> Loss:
    """Sum and count of a step-wise loss.

    "tokens": the count is that of observed steps, so neither masks nor a horizon shorter than the head's change the
    weight of a step. "reference": that of rows, so the mean is `published_loss`. A batch without a single target counts
    0 either way.
    """
    num_observed = observed_BH.sum()
    return Loss(loss_BH.sum(), num_observed if reduction == "tokens" else len(loss_BH) * (num_observed > 0))
