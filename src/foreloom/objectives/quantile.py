"""The quantile objective: twice the pinball loss, summed over levels, masked where there is nothing to score.

Axes: B rows, Q quantile levels, H horizon steps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from foreloom.objectives.loss import Loss

Reduction = Literal["tokens", "reference"]


def pinball(prediction_BQH: Tensor, target_BH: Tensor, observed_BH: Tensor, level_Q: Tensor) -> Tensor:
    """2 * pinball, summed over levels, (B, H); 0 where `observed` is false, and no gradient from there.

    Pinball of error e = target - prediction at level q: max(q e, (q - 1) e) (Koenker & Bassett 1978). Twice that is the
    absolute error at the median, and the mean over levels an approximation of the CRPS.
    """
    target_BH = torch.where(observed_BH, target_BH, 0.0)
    error = target_BH[:, None] - prediction_BQH
    level = level_Q[:, None]
    loss_BH = 2 * torch.maximum(level * error, (level - 1) * error).sum(1)
    return torch.where(observed_BH, loss_BH, 0.0)


def reduce(loss_BH: Tensor, observed_BH: Tensor, reduction: Reduction) -> Loss:
    """Sum and count of a step-wise loss.

    "tokens": the count is the number of observed steps, so masks, padding and covariate rows change nothing.
    "reference": the mean over all H steps summed over rows, counted by rows, as chronos-forecasting divides: padded
    steps and covariate rows dilute the loss. A batch without a single target counts 0 either way.
    """
    num_observed = observed_BH.sum()
    if reduction == "tokens":
        return Loss(loss_BH.sum(), num_observed)
    num_rows, horizon = loss_BH.shape
    return Loss(loss_BH.sum() / horizon, num_rows * (num_observed > 0))
