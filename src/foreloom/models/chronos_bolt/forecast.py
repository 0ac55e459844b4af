"""Chronos-Bolt answers forecasts: rows in batches, horizons beyond its head unrolled, any quantile level.

Axes: B rows, Q levels of the model (and paths), L context steps, T tokens, D model width, H horizon steps, P steps of
the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.models.chronos_bolt.architecture import Architecture
from foreloom.models.common.forecasting import UnivariateForecaster, interpolate_levels, quantiles_of
from foreloom.models.common.rows import left_padded, to_device


class ChronosBoltForecaster(UnivariateForecaster):
    """Forecasts with a Chronos-Bolt module. A row with nothing observed is forecast as one of mean 0 and deviation 1.

    Where a level is asked for that the model was not trained for, all are interpolated between the sorted values of its
    own, flat beyond its outermost, as chronos-forecasting does. Horizons beyond the head are unrolled.
    """

    model_name = "Chronos-Bolt"
    max_steps = 2**19
    """256 rows of 2048."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.architecture = Architecture.of(module)
        self.quantile_levels = self.architecture.quantiles
        self.context_length = self.architecture.context_length
        self.prediction_length = self.architecture.prediction_length

    def forecast(
        self, contexts: list[np.ndarray], prediction_length: int, quantile_levels: Sequence[float]
    ) -> np.ndarray:
        context_BL = left_padded(contexts, np.nan)
        all_observed = not np.isnan(context_BL).any()
        quantiles_BQH = unroll(
            lambda context: self.module(context, all_observed=all_observed).quantile_preds,
            to_device(context_BL, self.device),
            prediction_length,
            levels=self.quantile_levels,
            context_length=self.context_length,
        )
        return self._at(quantiles_BQH.transpose(1, 2), quantile_levels).cpu().numpy()

    def hidden_states(self, contexts: list[np.ndarray]) -> Tensor:
        """The encoder's: one a patch, counted from the end of the series, and the register token's."""
        context_BL = to_device(left_padded(contexts, np.nan), self.device)
        return self.module(context_BL, output_hidden_states=True).last_hidden_state

    def num_tokens(self, num_steps: int) -> int:
        return self.architecture.num_patches(num_steps) + self.architecture.use_reg_token

    def _at(self, quantiles_BHQ: Tensor, levels: Sequence[float]) -> Tensor:
        """(B, H, levels)."""
        if set(levels) <= set(self.quantile_levels):
            return quantiles_BHQ[..., [self.quantile_levels.index(level) for level in levels]]
        # The outermost values stand for the levels 0 and 1 too; all are sorted, as torch.quantile does there.
        values = torch.cat([quantiles_BHQ[..., :1], quantiles_BHQ, quantiles_BHQ[..., -1:]], -1).sort(-1).values
        return interpolate_levels(values, (0.0, *self.quantile_levels, 1.0), levels)


Forward = Callable[[Tensor], Tensor]
"""forward(context (B, L)) -> quantiles (B, Q, P)."""


def unroll(
    forward: Forward, context_BL: Tensor, horizon: int, *, levels: Sequence[float], context_length: int
) -> Tensor:
    """Quantiles (B, Q, H) of a horizon of any length, as chronos-forecasting's pipeline has them.

    After the first forward every row becomes Q paths. A path appends the forecast at its level and forecasts on; the
    Q * Q values of a step count as equally likely, and their quantiles are the forecast, and what the paths append.
    """
    last_BQP = forward(context_BL)
    merged = [last_BQP]
    paths_BQL = context_BL[:, None].expand(-1, len(levels), -1)
    for _ in range(last_BQP.shape[-1], horizon, last_BQP.shape[-1]):
        paths_BQL = torch.cat([paths_BQL, last_BQP], -1)[..., -context_length:]
        samples_BXP = forward(paths_BQL.flatten(0, 1)).unflatten(0, (len(context_BL), -1)).flatten(1, 2)
        last_BQP = quantiles_of(samples_BXP.transpose(1, 2), levels).transpose(1, 2)
        merged.append(last_BQP)
    return torch.cat(merged, -1)[..., :horizon]
