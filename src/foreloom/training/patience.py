"""When a run has learned what it can: the best validation so far and how many came after it in vain."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class BestLoss:
    """What the validations of a run have shown. Equal on every rank, part of every checkpoint."""

    loss: float = math.inf
    """The lowest."""
    step: int | None = None
    """Whose weights had it; the newer of equals never counts. None before the first finite loss."""
    last_step: int | None = None
    """Of the newest validation."""
    reference: float = math.inf
    """What the next loss must undercut by `min_delta` to count as an improvement: the last loss that did."""
    num_in_vain: int = 0
    """Validations since that improvement."""

    def note(self, step: int, loss: float, min_delta: float) -> None:
        """Take in a validation. A loss that is not finite improves nothing."""
        self.last_step = step
        if loss < self.loss:
            self.loss, self.step = loss, step
        if loss < self.reference - min_delta or (math.isinf(self.reference) and math.isfinite(loss)):
            self.reference, self.num_in_vain = loss, 0
        else:
            self.num_in_vain += 1
