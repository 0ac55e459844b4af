"""How far back a forecast looks: the mean over several pasts of a row, each shorter than the last, is steadier than
what the longest alone gives.

An ensemble over lookbacks is what N-BEATS wins by, too (Oreshkin et al. 2020, section 3.4), with a model trained for
each; here one model, which has learned from contexts of any length, is asked several times.

Axes: B rows, L context steps, K lookbacks.
"""

from __future__ import annotations

import numpy as np
import torch

from foreloom.models.chronos2.season import seasons_of
from foreloom.models.common.standardize import standardizer_of

SHORTER = 0.5**0.5
"""A lookback over the one before."""
LEAST_OBSERVED = 16
"""Steps that a shorter lookback must see."""
CYCLES = 2
"""Seasons that it must hold: one to copy, and one more to tell how well that goes."""


def lookbacks(context_BL: np.ndarray, num: int, device: torch.device) -> np.ndarray:
    """int64 (K, B): how many of its newest steps each lookback of a row shows; 0 for one that would show too few.

    `context_BL`: float32, NaN where missing. The first lookback shows everything from the first observed step on, the
    next each `SHORTER` of the one before.
    """
    observed_BL = ~np.isnan(context_BL)
    # Of a row without any, the newest step.
    whole_B = context_BL.shape[1] - np.where(observed_BL.any(1), observed_BL.argmax(1), context_BL.shape[1] - 1)
    steps_KB = np.round(SHORTER ** np.arange(num)[:, None] * whole_B).astype(np.int64)
    seen_BL = np.cumsum(observed_BL[:, ::-1], axis=1)  # of the newest step, of the newest two, ...
    seen_KB = np.take_along_axis(seen_BL, np.maximum(steps_KB - 1, 0).T, axis=1).T
    shows_enough = (seen_KB >= LEAST_OBSERVED) & (steps_KB >= CYCLES * _season(context_BL, whole_B, device))
    steps_KB[1:] *= shows_enough[1:]
    return steps_KB


def _season(context_BL: np.ndarray, whole_B: np.ndarray, device: torch.device) -> np.ndarray:
    """int64 (B,): that of the two seasons by which each row repeats itself better; 0 where there is none."""
    season_B = np.zeros_like(whole_B)
    # At a length that follows from a row alone, so that its company has no part in how its season is rounded.
    length_B = 2 ** np.ceil(np.log2(whole_B)).astype(np.int64)
    missing = max(int(length_B.max()) - context_BL.shape[1], 0)
    padded_BL = np.pad(context_BL, ((0, 0), (missing, 0)), constant_values=np.float32("nan"))
    for length in np.unique(length_B):
        rows = np.flatnonzero(length_B == length)
        context = torch.from_numpy(padded_BL[rows, -length:]).to(device)
        observed = ~context.isnan()
        seasons = seasons_of(standardizer_of(context, arcsinh=False).apply_where(observed, context), observed)
        is_longer_B = seasons.longer_correlation_B > seasons.correlation_B
        season_B[rows] = torch.where(is_longer_B, seasons.longer_B, seasons.lag_B).cpu().numpy()
    return season_B
