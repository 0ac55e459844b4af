"""Cross entropy over a vocabulary, as a sum and a count.

Axes: leading axes are free, V tokens of the vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from foreloom.objectives.loss import Loss


def cross_entropy(logits_V: Tensor, label: Tensor, ignored: int = -100) -> Loss:
    """-log softmax(logits)[label], natural logarithm, summed over the labels that are not `ignored`, in float32."""
    total = F.cross_entropy(logits_V.flatten(0, -2).float(), label.flatten(), ignore_index=ignored, reduction="sum")
    return Loss(total, (label != ignored).sum())
