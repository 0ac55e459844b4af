"""A loss is a sum and a count: the trainer divides once, by the count of the whole global batch.

Axes: B rows, Q quantile levels, H horizon steps, V tokens of a vocabulary.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def sum_dtype(device: torch.device) -> torch.dtype:
    """What sums over many are taken in: double precision, but on MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


class Loss(NamedTuple):
    """Summed loss and the number of terms in it, both scalars on the model's device.

    Sums and counts add across micro-batches and ranks, so the gradient of `sum / count` over the global batch does not
    depend on how the batch was cut up. `count` carries no gradient. A micro-batch without a single target has count 0.
    """

    sum: Tensor
    count: Tensor  # type: ignore[assignment]  # the field's standard word; tuple.count is not used

    @property
    def mean(self) -> Tensor:
        """The loss of this micro-batch alone; 0 where there is nothing to score."""
        return self.sum / self.count.clamp(min=1)

    @property
    def entry(self) -> Tensor:
        """(sum, count) as a figure of a tally, detached."""
        return torch.stack([self.sum, self.count]).detach()


def cross_entropy(logits_V: Tensor, label: Tensor, ignored: int = -100) -> Loss:
    """-log softmax(logits)[label], natural logarithm, summed over the labels that are not `ignored`, in float32."""
    total = F.cross_entropy(logits_V.flatten(0, -2).float(), label.flatten(), ignore_index=ignored, reduction="sum")
    return Loss(total, (label != ignored).sum())


Reduction = Literal["tokens", "reference"]
"""What a loss of steps is divided by: see `reduce`."""


def pinball(prediction_BQH: Tensor, target_BH: Tensor, observed_BH: Tensor, level_Q: Tensor) -> Tensor:
    """Quantile loss: 2 * pinball, summed over levels, (B, H); 0 where `observed` is false, and no gradient from there.

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
