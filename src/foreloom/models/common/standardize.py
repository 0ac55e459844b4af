"""Instance norm: each row is seen in units of its own context, missing steps left out.

Axes: B rows, C context steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-5
"""Stands in for the spread of a constant row."""


class Standardizer(NamedTuple):
    """A row's centre and spread, float32 (B, 1), and whether an arcsinh tames what is left."""

    loc: Tensor
    scale: Tensor
    arcsinh: bool

    def apply(self, x: Tensor) -> Tensor:
        """Data units -> model units, float32; NaN stays NaN."""
        z = (x.float() - self.loc) / self.scale
        return z.asinh() if self.arcsinh else z

    def apply_where(self, known: Tensor, x: Tensor) -> Tensor:
        """Model units where known and 0 elsewhere; nothing flows from or to the rest, NaN or not."""
        return torch.where(known, self.apply(torch.where(known, x, 0.0)), 0.0)

    def invert(self, z: Tensor) -> Tensor:
        """Model units -> data units, float32."""
        z = z.float()
        return (z.sinh() if self.arcsinh else z) * self.scale + self.loc


def standardizer_of(context_BC: Tensor, arcsinh: bool) -> Standardizer:
    """Mean and population standard deviation of the observed steps; 0 and 1 for a row without any.

    Rows are first brought near 1 by a power of two, which rounds nothing, so that neither the squares of values above
    1e19 overflow nor those below 1e-19 vanish.
    """
    x = context_BC.float()
    observed = ~x.isnan()
    count = observed.sum(-1, keepdim=True)
    divisor = count.clamp(min=1)
    x = torch.where(observed, x, 0.0)
    unit = _power_of_two_below(x.detach().abs().amax(-1, keepdim=True))
    x = x / unit
    loc = x.sum(-1, keepdim=True) / divisor
    deviation = torch.where(observed, x - loc, 0.0)
    variance = deviation.square().sum(-1, keepdim=True) / divisor
    # The root is taken away from 0, where its slope is infinite.
    scale = torch.where(variance > 0, variance, 1.0).sqrt() * unit
    scale = torch.where(variance > 0, scale, torch.where(count > 0, SMALLEST_SCALE, 1.0))
    return Standardizer(loc * unit, scale, arcsinh)


def _power_of_two_below(x: Tensor) -> Tensor:
    """Of positive normal float32 numbers, by clearing all bits but the exponent's; 1 for 0 and for subnormal ones."""
    power = (x.view(torch.int32) & 0x7F800000).view(torch.float32)
    return torch.where(power > 0, power, 1.0)
