"""The seasons of each row, found by its autocorrelation: to the step, which patches cannot be, without a frequency.

Axes: B rows, C context steps, L lags.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foreloom.objectives.loss import sum_dtype

LEAST_CORRELATION = 0.3
"""Below it there is no season."""
AS_GOOD = 0.05
"""The shortest lag that is so close to the best is the season: multiples of a season are as good as itself. Closer
where the best leaves less to explain: beside weeks that repeat exactly, days that nearly do are no season."""
LONGER = 1.5
"""How much longer the second season is at least."""


class Seasons(NamedTuple):
    """Two of each row: the season, and the best lag beyond it, as weeks are beyond days. Correlations are those of the
    row with itself one season later, float32; 0 where there is none."""

    lag_B: Tensor
    """int64, in steps; 0 where there is none."""
    correlation_B: Tensor
    longer_B: Tensor
    """int64; the season itself where no longer lag is one."""
    longer_correlation_B: Tensor


def seasons_of(value_BC: Tensor, observed_BC: Tensor) -> Seasons:
    """The lags at which each row, less a straight line, repeats itself best.

    The correlation of a lag is that of the observed pairs so far apart, about the line. A lag must be seen over half
    of itself and four pairs; it must lie behind the first one of negative correlation, since what merely wanders is
    like itself one step later; and chance is taken off: one over the root of the number of pairs.
    """
    residual_BC = _less_line(value_BC, observed_BC)
    correlation_BL, count_BL = _correlations(residual_BC, observed_BC)
    lag = torch.arange(value_BC.shape[1], device=value_BC.device)
    inner = correlation_BL[:, 1:-1]
    peak_BL = torch.zeros_like(observed_BC)
    peak_BL[:, 1:-1] = (inner >= correlation_BL[:, :-2]) & (inner >= correlation_BL[:, 2:])
    eligible = peak_BL & ((correlation_BL < 0).cumsum(1) > 0) & (count_BL >= 4) & (2 * count_BL >= lag)
    sure_BL = torch.where(eligible, correlation_BL - count_BL.clamp(min=1).rsqrt(), -1.0)
    best_B1, best_lag = sure_BL.max(1, keepdim=True)
    # Rounding may take a correlation of 1 above it: no lag is as good as what is better than the best.
    close_B1 = (1 - correlation_BL.gather(1, best_lag)).clamp(min=0, max=AS_GOOD)
    # argmax gives the first of equals.
    lag_B1 = (sure_BL >= best_B1 - close_B1).byte().argmax(1, keepdim=True)
    found_B1 = sure_BL.gather(1, lag_B1) >= LEAST_CORRELATION
    longer = torch.where(lag > LONGER * lag_B1, sure_BL, -1.0).max(1, keepdim=True)
    longer_B1 = torch.where(longer.values >= LEAST_CORRELATION, longer.indices, lag_B1)

    def season(lag_B1: Tensor) -> tuple[Tensor, Tensor]:
        correlation_B1 = _correlation(residual_BC, observed_BC, lag_B1).float()
        found = lambda x_B1: torch.where(found_B1, x_B1, 0).squeeze(1)
        return found(lag_B1), found(correlation_B1)

    return Seasons(*season(lag_B1), *season(longer_B1))


def _correlations(residual_BC: Tensor, observed_BC: Tensor) -> tuple[Tensor, Tensor]:
    """(B, L) each: about the line, and the number of pairs, by Fourier transforms."""
    num_steps = residual_BC.shape[1]
    parts = torch.stack([residual_BC, residual_BC.square(), observed_BC.to(residual_BC)])
    x, square, seen = torch.fft.rfft(parts, 2 * num_steps)
    products = torch.stack([x * x.conj(), square * seen.conj(), seen * square.conj(), seen * seen.conj()])
    product_BL, later_BL, earlier_BL, count_BL = torch.fft.irfft(products, 2 * num_steps)[..., :num_steps]
    energy_BL = (later_BL.clamp(min=0) * earlier_BL.clamp(min=0)).sqrt()
    # A constant row is nothing but rounding about its line.
    has_energy = energy_BL > 1e-8 * num_steps
    return torch.where(has_energy, product_BL / torch.where(has_energy, energy_BL, 1.0), 0.0), count_BL.round()


def _correlation(residual_BC: Tensor, observed_BC: Tensor, lag_B1: Tensor) -> Tensor:
    """(B, 1), each side about its own mean: a line through two seasons tilts them."""
    back_BC = torch.arange(residual_BC.shape[1], device=lag_B1.device) - lag_B1
    both_BC = observed_BC & (back_BC >= 0) & observed_BC.gather(1, back_BC.clamp(min=0))
    count_B1 = both_BC.sum(1, keepdim=True).clamp(min=1)

    def centred(x_BC: Tensor) -> Tensor:
        mean_B1 = torch.where(both_BC, x_BC, 0.0).sum(1, keepdim=True) / count_B1
        return torch.where(both_BC, x_BC - mean_B1, 0.0)

    later_BC, earlier_BC = centred(residual_BC), centred(residual_BC.gather(1, back_BC.clamp(min=0)))
    energy_B1 = (later_BC.square().sum(1, keepdim=True) * earlier_BC.square().sum(1, keepdim=True)).sqrt()
    return (later_BC * earlier_BC).sum(1, keepdim=True) / energy_B1.clamp(min=1e-12)


def _less_line(value_BC: Tensor, observed_BC: Tensor) -> Tensor:
    """Observed values less their least-squares line, 0 elsewhere, in double precision, so that how far a row is
    padded does not decide between two lags that are as good as each other."""
    precise = sum_dtype(value_BC.device)
    weight = observed_BC.to(precise)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    step = torch.arange(value_BC.shape[1], device=value_BC.device, dtype=precise)
    step = (step - (weight * step).sum(1, keepdim=True) / count) * weight
    value = value_BC.to(precise)
    value = (value - (weight * value).sum(1, keepdim=True) / count) * weight
    slope = (step * value).sum(1, keepdim=True) / step.square().sum(1, keepdim=True).clamp(min=1)
    return value - slope * step
