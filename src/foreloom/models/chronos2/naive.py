"""What naive forecasters would say, for a model to begin from: levels, drifts, seasons, and how wrong each would be.

The model reads these forecasts at its future tokens, with the errors that each would have made on the newest steps,
mixes them step by step and adds to the mixture; only the reading, the mixing and the adding are learned. Residuals on a
seasonal copy, gated: Smyl 2020 (ES-RNN) has the level and the season outside the network, too; forecasts weighed by
what is known of a series: Montero-Manso et al. 2020 (FFORMA).

Axes: B rows, C context steps, M cycles, H horizon steps, K naive forecasts, n future patches, P steps
of a patch, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from foreloom.models.common.layers import patches
from foreloom.models.common.season import Seasons, seasons_of

NUM_FORECASTS = 11
LEVEL_STEPS = 3
"""The last level is the median of so many observed steps: one spike does not move it."""
DRIFT_STEPS = 8
"""The drift is told from so many steps, and its change from as many before."""
SURE_DRIFT, SURE_CHANGE = 2.0, 1.0
"""Standard errors that a drift and its change must reach; what is beyond is shrunk as James and Stein would."""
MOST_GROWTH = 2.0
"""Of the drift, from one such stretch to the next."""
NUM_CYCLES = 4
"""Over which the mean of the seasons goes, and in which a missing step is looked for."""
LEAST_ERROR = 0.02
"""In deviations of the context; what is smaller is as good."""
HELD_BACK = 24
"""Newest steps that the forecasts are tried on, at most; a quarter of a shorter row."""


class NaiveForecasts(NamedTuple):
    """In the units they were computed from."""

    value_BKH: Tensor
    """float32: 0, which is the mean of a standardised context; the last value; the last level; the last value and
    its drift, as it is and growing as it grew; what `_repeated` gives of the season; of the longer season the last and
    the mean."""
    error_BK: Tensor
    """float32: log of the mean absolute error that each would have made on the newest steps, over the geometric mean of
    all: which is the best and not how good it is, since what was foretold well once may not go on so."""
    correlation_B2: Tensor
    """Of both seasons, see `Seasons`."""

    def reordered(self, order: Tensor) -> NaiveForecasts:
        """Row i is row order[i]."""
        return NaiveForecasts(*(x[order] for x in self))


def naive_forecasts(value_BC: Tensor, observed_BC: Tensor, horizon: int) -> NaiveForecasts:
    """Of rows in any unit near 1, 0 where not observed. Nothing flows back through them."""
    with torch.no_grad():
        seasons = seasons_of(value_BC, observed_BC)
        return NaiveForecasts(
            _forecasts(value_BC, observed_BC, seasons, horizon),
            _relative(_errors(value_BC, observed_BC, seasons)),
            torch.stack([seasons.correlation_B, seasons.longer_correlation_B], 1),
        )


def _forecasts(value_BC: Tensor, observed_BC: Tensor, seasons: Seasons, horizon: int) -> Tensor:
    """(B, K, H)."""
    value_B1, level_B1 = _last_value_and_level(value_BC, observed_BC)
    value_BH, level_BH = value_B1.expand(-1, horizon), level_B1.expand(-1, horizon)
    drifts = [value_B1 + x for x in _drifts(value_BC, observed_BC, horizon)]
    season = _repeated(value_BC, observed_BC, seasons.lag_B, level_BH)
    last_BH, _, mean_BH, _ = _repeated(value_BC, observed_BC, seasons.longer_B, level_BH)
    return torch.stack([torch.zeros_like(level_BH), value_BH, level_BH, *drifts, *season, last_BH, mean_BH], 1)


def _errors(value_BC: Tensor, observed_BC: Tensor, seasons: Seasons) -> Tensor:
    """(B, K): mean absolute errors on a row's newest steps, told from what lies before them and the seasons of all."""
    num_steps = value_BC.shape[1]
    first_B = torch.where(observed_BC.any(1), observed_BC.byte().argmax(1), num_steps)
    held_B1 = ((num_steps - first_B) // 4).clamp(1, HELD_BACK)[:, None]
    back_BC = torch.arange(num_steps, device=value_BC.device) - held_B1
    seen_BC = observed_BC.gather(1, back_BC.clamp(min=0)) & (back_BC >= 0)
    past_BC = torch.where(seen_BC, value_BC.gather(1, back_BC.clamp(min=0)), 0.0)
    ahead = torch.arange(HELD_BACK, device=value_BC.device)
    place_BH = (num_steps - held_B1 + ahead).clamp(max=num_steps - 1)
    scored_BH = observed_BC.gather(1, place_BH) & (ahead < held_B1)
    error_BKH = (_forecasts(past_BC, seen_BC, seasons, HELD_BACK) - value_BC.gather(1, place_BH)[:, None]).abs()
    return torch.where(scored_BH[:, None], error_BKH, 0.0).sum(2) / scored_BH.sum(1, keepdim=True).clamp(min=1)


def _relative(error_BK: Tensor) -> Tensor:
    log_BK = error_BK.clamp(min=LEAST_ERROR).log()
    return log_BK - log_BK.mean(1, keepdim=True)


def _last_value_and_level(value_BC: Tensor, observed_BC: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1) each: the newest observed step, and the median of the newest few; 0 where there are none."""
    newest_BC = observed_BC.flip(1).cumsum(1).flip(1)
    newest = [torch.where(observed_BC & (newest_BC == i), value_BC, 0.0).sum(1) for i in range(1, LEVEL_STEPS + 1)]
    count_B = observed_BC.sum(1)
    newest = [torch.where(count_B > i, x, newest[0]) for i, x in enumerate(newest)]
    return newest[0][:, None], torch.stack(newest, 1).median(1, keepdim=True).values


def _drifts(value_BC: Tensor, observed_BC: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """(B, H) each, what the newest differences add up to: as if they stayed as they are, and as if they went on growing
    or shrinking as they did, for as long as was looked at. 0 where fewer than four differences are known."""
    num_old = DRIFT_STEPS - 1
    mean_B1, error_B1 = _mean_difference(value_BC[:, -DRIFT_STEPS:], observed_BC[:, -DRIFT_STEPS:])
    before = slice(-DRIFT_STEPS - num_old, -num_old)
    old_B1, old_error_B1 = _mean_difference(value_BC[:, before], observed_BC[:, before])
    drift_B1 = mean_B1 * _sure(mean_B1, error_B1, SURE_DRIFT)
    change_B1 = (mean_B1 - old_B1) * _sure(mean_B1 - old_B1, error_B1 + old_error_B1, SURE_CHANGE)
    # Exponential growth has differences that grow by the same share.
    base_B1 = mean_B1 - torch.where(old_error_B1.isinf(), 0.0, change_B1)
    share_B1 = torch.where(base_B1 * mean_B1 > 0, mean_B1 / torch.where(base_B1 == 0, 1.0, base_B1), 1.0)
    growth_B1 = share_B1.clamp(1 / MOST_GROWTH, MOST_GROWTH) ** (1 / num_old)
    ahead_H = torch.arange(1, horizon + 1, device=value_BC.device)
    # The mean difference is that of the middle of its steps.
    grown_BH = growth_B1 ** (ahead_H.clamp(max=2 * DRIFT_STEPS) + (num_old - 1) / 2)
    return drift_B1 * ahead_H, drift_B1 * grown_BH.cumsum(1)


def _mean_difference(value_BC: Tensor, observed_BC: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1) each: the mean of the differences a step and its squared standard error; 0 and infinite below four."""
    known = observed_BC[:, 1:] & observed_BC[:, :-1]
    difference = torch.where(known, value_BC.diff(dim=1), 0.0)
    count = known.sum(1, keepdim=True)
    mean = difference.sum(1, keepdim=True) / count.clamp(min=1)
    around = torch.where(known, difference - mean, 0.0)
    squared_error = around.square().sum(1, keepdim=True) / (count * (count - 1)).clamp(min=1)
    return torch.where(count >= 4, mean, 0.0), torch.where(count >= 4, squared_error, torch.inf)


def _sure(mean: Tensor, squared_error: Tensor, num_errors: float) -> Tensor:
    """The share of a mean that is sure, in [0, 1]: none of what wanders, nor of noise, whose differences cancel."""
    return (1 - num_errors**2 * squared_error / mean.square().clamp(min=1e-12)).clamp(min=0)


def _repeated(value_BC: Tensor, observed_BC: Tensor, lag_B: Tensor, level_BH: Tensor) -> tuple[Tensor, ...]:
    """(B, H) each, the level where there is no season: the newest observed step of the same place in the season; the
    same, moved on as the last season moved from the one before; the mean of the last few seasons, each put where the
    last one lies; the same, moved on as they moved."""
    step_BM, shares_BM = _steps(value_BC, observed_BC, lag_B)
    cycle, ahead = (torch.arange(n, device=lag_B.device) for n in (NUM_CYCLES, level_BH.shape[1]))
    lag_B11 = lag_B.clamp(min=1)[:, None, None]
    place_BMH = value_BC.shape[1] + ahead % lag_B11 - (cycle[:, None] + 1) * lag_B11
    at = lambda x: x.gather(1, place_BMH.clamp(min=0).flatten(1)).unflatten(1, place_BMH.shape[1:])
    value_BMH, known_BMH = at(value_BC), at(observed_BC) & (place_BMH >= 0) & (lag_B > 0)[:, None, None]
    last_BH = value_BMH[:, -1]
    for i in range(NUM_CYCLES - 2, -1, -1):
        last_BH = torch.where(known_BMH[:, i], value_BMH[:, i], last_BH)
    count_BH = known_BMH.sum(1)
    mean_BH = torch.where(known_BMH, value_BMH + step_BM[:, :, None], 0.0).sum(1) / count_BH.clamp(min=1)
    longest_B1 = (shares_BM * cycle).max(1, keepdim=True).values  # the longest way is the surest
    trend_B1 = step_BM.gather(1, longest_B1) / longest_B1.clamp(min=1)
    num_seasons_BH = ahead // lag_B11.squeeze(2) + 1
    told = last_BH, last_BH + step_BM[:, 1:2] * num_seasons_BH, mean_BH, mean_BH + trend_B1 * num_seasons_BH
    return tuple(torch.where(count_BH > 0, x, level_BH) for x in told)


def _steps(value_BC: Tensor, observed_BC: Tensor, lag_B: Tensor) -> tuple[Tensor, Tensor]:
    """(B, M): how far the last season lies above each of the last few, by the steps that both have; and whether there
    are such steps. 0 where there are none."""
    place = torch.arange(value_BC.shape[1], device=lag_B.device)
    in_last_BC = (value_BC.shape[1] - place <= lag_B[:, None]) & observed_BC
    steps, shares = [value_BC.new_zeros(len(value_BC))], [torch.ones_like(lag_B, dtype=torch.bool)]
    for cycle in range(1, NUM_CYCLES):
        back_BC = place - cycle * lag_B[:, None]
        of = lambda x, back_BC=back_BC: x.gather(1, back_BC.clamp(min=0))
        both_BC = in_last_BC & (back_BC >= 0) & of(observed_BC)
        difference_BC = torch.where(both_BC, value_BC - of(value_BC), 0.0)
        steps.append(difference_BC.sum(1) / both_BC.sum(1).clamp(min=1))
        shares.append(both_BC.any(1))
    return torch.stack(steps, 1), torch.stack(shares, 1)


class NaiveMixture(nn.Module):
    """Brings naive forecasts into the model and mixes them into the forecast it begins from."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.reading = nn.Linear(NUM_FORECASTS * (patch_size + 1) + 2, width)
        self.weighing = nn.Linear(width, NUM_FORECASTS * patch_size)

    def read(self, naive: NaiveForecasts) -> Tensor:
        """(B, n, D), to be added to the future tokens."""
        value_BnX = patches(naive.value_BKH, self.patch_size).transpose(1, 2).flatten(2)
        # By its odds: 0.95 and 0.99 are further apart than 0.5 and 0.6.
        odds_B2 = naive.correlation_B2.clamp(1e-3, 1 - 1e-3).logit()
        of_row_BnX = torch.cat([odds_B2, naive.error_BK], 1)[:, None].expand(-1, value_BnX.shape[1], -1)
        return self.reading(torch.cat([value_BnX, of_row_BnX], -1).to(self.reading.weight.dtype))

    def mix(self, hidden_BnD: Tensor, naive: NaiveForecasts) -> Tensor:
        """(B, H): at each step weights that sum to 1, by softmax."""
        logits_BnKP = self.weighing(hidden_BnD).unflatten(-1, (NUM_FORECASTS, self.patch_size)).float()
        value_BnKP = patches(naive.value_BKH, self.patch_size).transpose(1, 2)
        return (logits_BnKP.softmax(2) * value_BnKP).sum(2).flatten(1)
