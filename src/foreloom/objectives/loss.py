"""A loss is a sum and a count: the trainer divides once, by the count of the whole global batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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
