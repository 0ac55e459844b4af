"""What naive forecasters would say, for a model to begin from: levels, a drift, the last season, a mean of seasons.

A season is found in each context by its autocorrelation, so it is exact to the step, which patches cannot be, and needs
no frequency. The model reads these forecasts at its future tokens, mixes them step by step and adds to the mixture;
only the reading, the mixing and the adding are learned. Residuals on a seasonal copy, gated: Smyl 2020 (ES-RNN) has the
level and the season outside the network, too.

Axes: B rows, C context steps, L lags, M cycles, H horizon steps, K = 7 naive forecasts, n future patches, P steps of a
patch, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from foreloom.models.common.layers import patches
from foreloom.objectives.loss import sum_dtype

NUM_FORECASTS = 7
NUM_CYCLES = 4
"""Over which the mean of the seasons goes, and in which a missing step is looked for."""
LEVEL_STEPS = 3
"""The last level is the median of so many observed steps: one spike does not move it."""
DRIFT_STEPS = 8
"""The drift is told from so many steps."""
SURE_DRIFT = 2.0
"""Standard errors of it that a drift must reach; what is beyond is shrunk as James and Stein would."""
LEAST_CORRELATION = 0.3
"""Below it there is no season."""
AS_GOOD = 0.05
"""The shortest lag that is so close to the best is the season: multiples of a season are as good as itself. Closer
where the best leaves less to explain: beside weeks that repeat exactly, days that nearly do are no season."""


class Season(NamedTuple):
    """The season of each row."""

    lag_B: Tensor
    """int64, in steps; 0 where there is none."""
    correlation_B: Tensor
    """float32, of the row with itself one season later; 0 where there is none."""


class NaiveForecasts(NamedTuple):
    """In the units they were computed from."""

    value_BKH: Tensor
    """float32: 0, which is the mean of a standardised context; the last value; the last level; the last value and its
    drift; the last season; the last season, moved as far as it lies from the one before; the mean of the last seasons.
    The level in place of the last three where there is no season."""
    correlation_B: Tensor
    """See `Season`."""

    def reordered(self, order: Tensor) -> NaiveForecasts:
        """Row i is row order[i]."""
        return NaiveForecasts(self.value_BKH[order], self.correlation_B[order])


def naive_forecasts(value_BC: Tensor, observed_BC: Tensor, horizon: int) -> NaiveForecasts:
    """Of rows in any unit near 1, 0 where not observed. Nothing flows back through them."""
    with torch.no_grad():
        season = season_of(value_BC, observed_BC)
        newest_BC = observed_BC.flip(1).cumsum(1).flip(1)
        ahead = torch.arange(horizon, device=value_BC.device)
        across = lambda x_B1: x_B1.expand(-1, horizon)
        value_B1, level_B1 = _last_value_and_level(value_BC, observed_BC, newest_BC)
        drift_BH = value_B1 + _drift(value_BC, observed_BC) * (ahead + 1)
        last_BH, mean_BH = _repeated(value_BC, observed_BC, season.lag_B, across(level_B1))
        moved_BH = last_BH + _move(value_BC, observed_BC, season.lag_B)
        levels = torch.zeros_like(drift_BH), across(value_B1), across(level_B1)
        return NaiveForecasts(torch.stack([*levels, drift_BH, last_BH, moved_BH, mean_BH], 1), season.correlation_B)


def season_of(value_BC: Tensor, observed_BC: Tensor) -> Season:
    """The lag at which each row, less a straight line, repeats itself best.

    The correlation of a lag is that of the observed pairs so far apart, about the line. A lag must be seen over half
    of itself and four pairs; it must lie behind the first one of negative correlation, since what merely wanders is
    like itself one step later; and chance is taken off: one over the root of the number of pairs.
    """
    num_steps = value_BC.shape[1]
    residual_BC = _less_line(value_BC, observed_BC)
    spectra = torch.fft.rfft(
        torch.stack([residual_BC, residual_BC.square(), observed_BC.to(residual_BC)]), 2 * num_steps
    )
    x, square, seen = spectra
    products = torch.stack([x * x.conj(), square * seen.conj(), seen * square.conj(), seen * seen.conj()])
    product_BL, later_BL, earlier_BL, count_BL = torch.fft.irfft(products, 2 * num_steps)[..., :num_steps]
    count_BL = count_BL.round()
    energy_BL = (later_BL.clamp(min=0) * earlier_BL.clamp(min=0)).sqrt()
    # A constant row is nothing but rounding about its line.
    has_energy = energy_BL > 1e-8 * num_steps
    correlation_BL = torch.where(has_energy, product_BL / torch.where(has_energy, energy_BL, 1.0), 0.0)
    lag = torch.arange(num_steps, device=value_BC.device)
    peak_BL = torch.zeros_like(has_energy)
    peak_BL[:, 1:-1] = (correlation_BL[:, 1:-1] >= correlation_BL[:, :-2]) & (
        correlation_BL[:, 1:-1] >= correlation_BL[:, 2:]
    )
    eligible = peak_BL & ((correlation_BL < 0).cumsum(1) > 0) & (count_BL >= 4) & (2 * count_BL >= lag)
    sure_BL = torch.where(eligible, correlation_BL - count_BL.clamp(min=1).rsqrt(), -1.0)
    best_B1, best_lag = sure_BL.max(1, keepdim=True)
    close_B1 = (1 - correlation_BL.gather(1, best_lag)).clamp(max=AS_GOOD)
    # argmax gives the first of equals.
    lag_B1 = (sure_BL >= best_B1 - close_B1).byte().argmax(1, keepdim=True)
    found_B = (sure_BL.gather(1, lag_B1) >= LEAST_CORRELATION).squeeze(1)
    correlation_B = correlation_BL.gather(1, lag_B1).squeeze(1).float()
    return Season(torch.where(found_B, lag_B1.squeeze(1), 0), torch.where(found_B, correlation_B, 0.0))


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


def _last_value_and_level(value_BC: Tensor, observed_BC: Tensor, newest_BC: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1) each: the newest observed step, and the median of the newest few; 0 where there are none. `newest_BC`
    counts the observed steps from the end."""
    count_B = observed_BC.sum(1)
    newest = [torch.where(observed_BC & (newest_BC == i), value_BC, 0.0).sum(1) for i in range(1, LEVEL_STEPS + 1)]
    newest = [torch.where(count_B > i, x, newest[0]) for i, x in enumerate(newest)]
    return newest[0][:, None], torch.stack(newest, 1).median(1, keepdim=True).values


def _drift(value_BC: Tensor, observed_BC: Tensor) -> Tensor:
    """(B, 1), a step: the mean of the newest differences, as far as it is sure. What merely wanders has none, and noise
    has none, whose differences cancel. 0 where fewer than four differences are known."""
    value_BC, observed_BC = value_BC[:, -DRIFT_STEPS:], observed_BC[:, -DRIFT_STEPS:]
    known = observed_BC[:, 1:] & observed_BC[:, :-1]
    difference = torch.where(known, value_BC.diff(dim=1), 0.0)
    count = known.sum(1, keepdim=True)
    mean = difference.sum(1, keepdim=True) / count.clamp(min=1)
    around = torch.where(known, difference - mean, 0.0)
    squared_error = around.square().sum(1, keepdim=True) / (count * (count - 1)).clamp(min=1)
    doubt = SURE_DRIFT**2 * squared_error / mean.square().clamp(min=1e-12)
    return torch.where(count >= 4, mean * (1 - doubt).clamp(min=0), 0.0)


def _repeated(value_BC: Tensor, observed_BC: Tensor, lag_B: Tensor, level_BH: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H) each: the newest observed step of the same place in the season, and the mean of the last few; the level
    where there is none."""
    lag_B11 = lag_B.clamp(min=1)[:, None, None]
    ahead, cycle = (torch.arange(n, device=lag_B.device) for n in (level_BH.shape[1], NUM_CYCLES))
    place_BMH = value_BC.shape[1] + ahead % lag_B11 - (cycle[:, None] + 1) * lag_B11
    at = lambda x: x.gather(1, place_BMH.clamp(min=0).flatten(1)).unflatten(1, place_BMH.shape[1:])
    known_BMH = at(observed_BC) & (place_BMH >= 0) & (lag_B > 0)[:, None, None]
    seen_BMH, count_BH = at(value_BC), known_BMH.sum(1)
    last_BH = seen_BMH.gather(1, known_BMH.byte().argmax(1, keepdim=True)).squeeze(1)
    mean_BH = torch.where(known_BMH, seen_BMH, 0.0).sum(1) / count_BH.clamp(min=1)
    return torch.where(count_BH > 0, last_BH, level_BH), torch.where(count_BH > 0, mean_BH, level_BH)


def _move(value_BC: Tensor, observed_BC: Tensor, lag_B: Tensor) -> Tensor:
    """(B, 1): how far the mean of the last season lies above that of the one before; 0 without two whole seasons."""
    num_steps = value_BC.shape[1]
    back_C = torch.arange(num_steps, 0, -1, device=lag_B.device)
    lag_B1 = lag_B[:, None]

    def mean(chosen_BC: Tensor) -> tuple[Tensor, Tensor]:
        chosen_BC = chosen_BC & observed_BC
        count_B1 = chosen_BC.sum(1, keepdim=True)
        return torch.where(chosen_BC, value_BC, 0.0).sum(1, keepdim=True) / count_B1.clamp(min=1), count_B1

    last_B1, num_last = mean(back_C <= lag_B1)
    before_B1, num_before = mean((back_C > lag_B1) & (back_C <= 2 * lag_B1))
    whole = (2 * lag_B1 <= num_steps) & (num_last > 0) & (num_before > 0)
    return torch.where(whole, last_B1 - before_B1, 0.0)


class NaiveMixture(nn.Module):
    """Brings naive forecasts into the model and mixes them into the forecast it begins from."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.reading = nn.Linear(NUM_FORECASTS * patch_size + 1, width)
        self.weighing = nn.Linear(width, NUM_FORECASTS * patch_size)

    def read(self, naive: NaiveForecasts) -> Tensor:
        """(B, n, D), to be added to the future tokens."""
        value_BnX = patches(naive.value_BKH, self.patch_size).transpose(1, 2).flatten(2)
        # By its odds: 0.95 and 0.99 are further apart than 0.5 and 0.6.
        odds = naive.correlation_B.clamp(1e-3, 1 - 1e-3).logit()[:, None, None].expand(-1, value_BnX.shape[1], 1)
        return self.reading(torch.cat([value_BnX, odds], -1).to(self.reading.weight.dtype))

    def mix(self, hidden_BnD: Tensor, naive: NaiveForecasts) -> Tensor:
        """(B, H): at each step weights that sum to 1, by softmax."""
        logits_BnKP = self.weighing(hidden_BnD).unflatten(-1, (NUM_FORECASTS, self.patch_size)).float()
        value_BnKP = patches(naive.value_BKH, self.patch_size).transpose(1, 2)
        return (logits_BnKP.softmax(2) * value_BnKP).sum(2).flatten(1)
