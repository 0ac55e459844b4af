"""Time-MoE answers forecasts: contexts brought to unit scale, batched by length, generated step after step.

Axes: V target rows of an input, L context steps, B rows of a batch, H horizon steps, D model width; of routing, R rows,
M layers, E experts, K experts a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.common.answering import answering
from foreloom.models.common.contexts import usable_steps
from foreloom.models.common.rows import batches_by_length, last_observed, left_padded
from foreloom.models.common.transfer import to_device
from foreloom.models.family import ExpertChoices
from foreloom.models.time_moe.architecture import architecture_of_module
from foreloom.models.time_moe.generate import generate
from foreloom.models.time_moe.model import TimeMoeForPrediction

MOST_STEPS = 65536
"""Most context steps of one forward, which bounds the memory of attention caches and experts."""


class Row(NamedTuple):
    """One context, ready for the model."""

    values_L: np.ndarray
    """float32, from its first observed step on, nothing missing, scaled."""
    center: float
    scale: float


class TimeMoeForecaster:
    """Forecasts with a Time-MoE module; the module keeps its device and, outside the calls, its training mode.

    The model is univariate and knows no levels: covariates are passed over, every level gets the one forecast there is.
    """

    is_autoregressive = True

    def __init__(self, module: nn.Module, *, scales: bool = True) -> None:
        """`scales`: bring each context to zero mean and unit deviation, and the forecast back."""
        self.module = module
        self.quantile_levels: tuple[float, ...] = (0.5,)
        self._scales = scales
        self._limit = architecture_of_module(module).max_position_embeddings
        self.prediction_length = architecture_of_module(module).horizon_lengths[-1]
        self.context_length = self._limit - self.prediction_length

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
        """See `models.family.Forecaster`. A row with nothing observed is forecast from a single 0.

        Context and forecast together are `max_position_embeddings` steps at most. Without a `context_length` of its own
        choice (none, or that of this forecaster) a forecast uses the newest steps that leave room for it. ValueError
        where the two lengths asked for do not fit, and for cross_learning.
        """
        if cross_learning:
            raise ValueError("cross_learning: Time-MoE forecasts each series on its own; leave it out.")
        rows, parts = self._rows(inputs, self._usable(prediction_length, context_length))
        forecast_NH = np.empty((len(rows), prediction_length), np.float32)
        with answering(self.module):
            for chosen in self._batches(rows, batch_size):
                values_BL, mask_BL = self._stacked([rows[i] for i in chosen])
                both_BT = generate(
                    cast(TimeMoeForPrediction, self.module), values_BL, prediction_length, attention_mask=mask_BL
                )
                new_BH = both_BT[:, -prediction_length:].float().cpu().numpy()
                center, scale = (np.array([[getattr(rows[i], name)] for i in chosen]) for name in ("center", "scale"))
                forecast_NH[chosen] = new_BH * scale + center
        answers_NHQ = np.repeat(forecast_NH[..., None], len(quantile_levels), axis=-1)
        return [answers_NHQ[part] for part in parts]

    @property
    def max_steps(self) -> int:
        """Most rows of one forward times the longest of their contexts; a call that holds more is cut up."""
        return MOST_STEPS

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        """Final hidden states (targets, tokens, D) an input, a token a step from the first that any target observes.

        Tokens before a target's own first observed step are 0.
        """
        rows, parts = self._rows(inputs, self._limit)
        hidden: list[np.ndarray] = [np.empty(0)] * len(rows)
        with answering(self.module):
            for chosen in self._batches(rows, batch_size):
                values_BL, mask_BL = self._stacked([rows[i] for i in chosen])
                output = self.module(values_BL, attention_mask=mask_BL, output_hidden_states=True)
                for i, hidden_LD in zip(chosen, output.hidden_states[-1].float().cpu().numpy(), strict=True):
                    hidden[i] = hidden_LD[-len(rows[i].values_L) :]
        return [left_padded(hidden[part], 0.0) for part in parts]

    def route(
        self, inputs: Sequence[ForecastInput], *, batch_size: int = 256, context_length: int | None = None
    ) -> ExpertChoices:
        """See `models.family.RoutedForecaster`: every step of a row goes its own way, in every layer."""
        arch = architecture_of_module(self.module)
        if arch.use_dense:
            raise ValueError("this model has no experts (use_dense is true), so there is no routing to tell of.")
        rows, _ = self._rows(inputs, usable_steps(inputs, context_length, self.context_length))
        shape = (len(rows), arch.num_hidden_layers, arch.num_experts)
        chosen_RME, probability_RME = np.empty(shape, np.int64), np.empty(shape, np.float32)
        with answering(self.module):
            for chosen in self._batches(rows, batch_size):
                values_BL, mask_BL = self._stacked([rows[i] for i in chosen])
                output = self.module(values_BL, attention_mask=mask_BL, output_router_logits=True)
                step_BL = torch.ones_like(values_BL) if mask_BL is None else mask_BL.to(values_BL.dtype)
                taken = F.one_hot(output.router_choices, arch.num_experts).sum(-2)
                chosen_RME[chosen] = _sum_over_steps(taken, step_BL)
                probability = _sum_over_steps(output.router_logits.softmax(-1), step_BL)
                probability_RME[chosen] = probability / step_BL.sum(1).cpu().numpy()[:, None, None]
        return ExpertChoices(chosen_RME, probability_RME, arch.num_experts_per_tok)

    def on_scaled_data(self) -> Self:
        """One that takes values as they are, because they were brought to unit scale before."""
        return type(self)(self.module, scales=False)

    def _usable(self, prediction_length: int, context_length: int | None) -> int:
        """Context steps beside a forecast of `prediction_length` steps."""
        if prediction_length >= self._limit:
            raise ValueError(
                f"prediction_length {prediction_length} leaves no context: the model takes {self._limit} steps "
                "together (max_position_embeddings)."
            )
        if context_length is None or context_length == self.context_length:
            return self._limit - prediction_length
        if context_length < 1:
            raise ValueError(f"context_length must be at least 1, got {context_length}.")
        if context_length + prediction_length > self._limit:
            raise ValueError(
                f"context_length {context_length} and prediction_length {prediction_length} are "
                f"{context_length + prediction_length} steps, and the model takes {self._limit} "
                "(max_position_embeddings); shorten one."
            )
        return context_length

    def _rows(self, inputs: Sequence[ForecastInput], context_length: int) -> tuple[list[Row], list[slice]]:
        """The target rows of all inputs one after another, and which are whose."""
        rows = [self._row(x_L[-context_length:]) for x in inputs for x_L in x.context_RC[: x.num_targets]]
        ends = accumulate(x.num_targets for x in inputs)
        return rows, [slice(end - x.num_targets, end) for end, x in zip(ends, inputs, strict=True)]

    def _row(self, x_L: np.ndarray) -> Row:
        observed_L = np.isfinite(x_L)
        if not observed_L.any():
            return Row(np.zeros(1, np.float32), 0.0, 1.0)
        seen = x_L[observed_L].astype(np.float64)
        center, scale = (float(seen.mean()), _deviation(seen)) if self._scales else (0.0, 1.0)
        first = int(observed_L.argmax())
        # In double precision: a level far above the deviation takes no digits off it, and nothing overflows.
        filled_L = last_observed(x_L[None, first:], observed_L[None, first:])[0].astype(np.float64)
        return Row(((filled_L - center) / scale).astype(np.float32), center, scale)

    def _batches(self, rows: Sequence[Row], batch_size: int) -> Iterator[list[int]]:
        return batches_by_length([len(row.values_L) for row in rows], batch_size, self.max_steps)

    def _stacked(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Values (B, L), zeros before shorter rows, and the mask of what is not; none where all are equally long."""
        device = next(self.module.parameters()).device
        values_BL = left_padded([row.values_L for row in rows], 0.0)
        length_B = np.array([len(row.values_L) for row in rows])
        mask_BL = np.arange(values_BL.shape[1])[::-1] < length_B[:, None]
        return to_device(values_BL, device), None if mask_BL.all() else to_device(mask_BL, device)


def _sum_over_steps(x_MNE: torch.Tensor, step_BL: torch.Tensor) -> np.ndarray:
    """(B, M, E): of each row, over its steps (1 where there is one), the N = B*L tokens of all rows."""
    return torch.einsum("mble,bl->bme", x_MNE.unflatten(1, step_BL.shape).float(), step_BL).cpu().numpy()


def _deviation(seen: np.ndarray) -> float:
    """As torch.std has it, with one degree of freedom less; 1 for a constant."""
    return float(seen.std(ddof=1)) or 1.0 if len(seen) > 1 else 1.0
