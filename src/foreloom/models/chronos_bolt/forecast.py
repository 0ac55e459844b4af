"""Chronos-Bolt answers forecasts: rows in batches, horizons beyond its head unrolled, any quantile level.

Axes: V target rows of an input, B rows of a batch, N rows of all inputs, L context steps, H horizon steps, Q levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_bolt.architecture import architecture_of_module
from foreloom.models.chronos_bolt.unroll import unroll
from foreloom.models.common.answering import answering
from foreloom.models.common.contexts import target_rows, usable_steps
from foreloom.models.common.levels import interpolate_levels
from foreloom.models.common.rows import batches_by_length, left_padded
from foreloom.models.common.transfer import to_device

MOST_STEPS = 2**19
"""Most context steps of one forward, which bounds the memory of attention: 256 rows of 2048."""


class ChronosBoltForecaster:
    """Forecasts with a Chronos-Bolt module; the module keeps its device and, outside the calls, its training mode.

    The model is univariate: covariates are passed over.
    """

    is_autoregressive = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.architecture = architecture_of_module(module)
        self.quantile_levels = self.architecture.quantiles
        self.context_length = self.architecture.context_length
        self.prediction_length = self.architecture.prediction_length

    def predict_quantiles(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int,
        quantile_levels: Sequence[float],
        *,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
    ) -> list[np.ndarray]:
        """See `models.family.Forecaster`. A row with nothing observed is forecast as one of mean 0 and deviation 1.

        Where a level is asked for that the model was not trained for, all are interpolated between the sorted values of
        its own, flat beyond its outermost, as chronos-forecasting does. Horizons beyond the head are unrolled.
        ValueError for a context beyond the limit where `context_length` does not say how much of it to use, and for
        cross_learning.
        """
        if cross_learning:
            raise ValueError("cross_learning: Chronos-Bolt forecasts each series on its own; leave it out.")
        rows, parts = target_rows(inputs, usable_steps(inputs, context_length, self.context_length))
        answers_NHQ = np.empty((len(rows), prediction_length, len(quantile_levels)), np.float32)
        with answering(self.module):
            for chosen in batches_by_length([len(row) for row in rows], batch_size, MOST_STEPS):
                quantiles_BQH = self._predict([rows[i] for i in chosen], prediction_length)
                answers_NHQ[chosen] = self._at(quantiles_BQH.transpose(1, 2), quantile_levels).cpu().numpy()
        return [answers_NHQ[part] for part in parts]

    @property
    def max_steps(self) -> int:
        """Most rows of one forward times the longest of their contexts; a call that holds more is cut up."""
        return MOST_STEPS

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        """The encoder's states (V, tokens, D) an input: one a patch, counted from the end of the series back to the
        first that any of its targets observes, and the register token's. Tokens before a target's own first are 0."""
        rows, parts = target_rows(inputs, usable_steps(inputs, None, self.context_length))
        hidden: list[np.ndarray] = [np.empty(0)] * len(rows)
        with answering(self.module):
            for chosen in batches_by_length([len(row) for row in rows], batch_size, MOST_STEPS):
                context_BL = left_padded([rows[i] for i in chosen], np.nan)
                output = self.module(to_device(context_BL, self._device), output_hidden_states=True)
                for i, hidden_TD in zip(chosen, output.last_hidden_state.float().cpu().numpy(), strict=True):
                    num_tokens = self.architecture.num_patches(len(rows[i])) + self.architecture.use_reg_token
                    hidden[i] = hidden_TD[-num_tokens:]
        return [left_padded(hidden[part], 0.0) for part in parts]

    def on_scaled_data(self) -> Self:
        """Itself: the model standardises every context anyway."""
        return self

    def _predict(self, contexts: Sequence[np.ndarray], prediction_length: int) -> Tensor:
        """Quantiles (B, Q, H) of one batch."""
        context_BL = left_padded(contexts, np.nan)
        all_observed = not np.isnan(context_BL).any()
        return unroll(
            lambda context: self.module(context, all_observed=all_observed).quantile_preds,
            to_device(context_BL, self._device),
            prediction_length,
            levels=self.quantile_levels,
            context_length=self.context_length,
        )

    def _at(self, quantiles_BHQ: Tensor, levels: Sequence[float]) -> Tensor:
        """(B, H, levels)."""
        if set(levels) <= set(self.quantile_levels):
            return quantiles_BHQ[..., [self.quantile_levels.index(level) for level in levels]]
        # The outermost values stand for the levels 0 and 1 too; all are sorted, as torch.quantile does there.
        values = torch.cat([quantiles_BHQ[..., :1], quantiles_BHQ, quantiles_BHQ[..., -1:]], -1).sort(-1).values
        return interpolate_levels(values, (0.0, *self.quantile_levels, 1.0), levels)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device
