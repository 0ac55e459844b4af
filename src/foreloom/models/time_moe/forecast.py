"""Time-MoE answers forecasts: contexts brought to unit scale, batched by length, generated step after step.

Axes: B rows of a batch, L context steps, H horizon steps, D model width; of routing, R rows, M layers, E experts, K
experts a token, N = B*L tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom import subnormals
from foreloom.data.forecast_input import ForecastInput
from foreloom.models.common.forecasting import UnivariateForecaster
from foreloom.models.common.rows import last_observed, left_padded, to_device
from foreloom.models.family import ExpertChoices
from foreloom.models.time_moe.architecture import Architecture
from foreloom.models.time_moe.generate import context_room, generate


class TimeMoeForecaster(UnivariateForecaster):
    """Forecasts with a Time-MoE module. A row with nothing observed is forecast from a single 0.

    The model knows no levels: every level gets the one forecast there is. Context and forecast together are
    `max_position_embeddings` steps at most. Without a `context_length` of its own choice (none, or that of this
    forecaster) a forecast uses the newest steps that leave room for it, with a warning where that cuts any; where the
    two lengths asked for do not fit, it raises ValueError. With the protocol "reference" there is no such limit,
    as in the official code.
    """

    model_name = "Time-MoE"
    max_steps = 65536
    """Of attention caches and experts."""
    is_autoregressive = True

    def __init__(self, module: nn.Module, *, scales: bool = True) -> None:
        """`scales`: bring each context to zero mean and unit deviation, and the forecast back."""
        super().__init__(module)
        self.quantile_levels = (0.5,)
        self._scales = scales
        self._limit = Architecture.of(module).max_position_embeddings
        self.prediction_length = Architecture.of(module).horizon_lengths[-1]
        self.context_length = self._limit - self.prediction_length

    def forecast(
        self, contexts: list[np.ndarray], prediction_length: int, quantile_levels: Sequence[float]
    ) -> np.ndarray:
        values_BL, mask_BL, center_B, scale_B = self._scaled(contexts)
        both_BT = generate(self.module, values_BL, prediction_length, attention_mask=mask_BL)
        with subnormals.kept():  # a series of such values is in units of its own
            new_BH = both_BT[:, -prediction_length:].float().cpu().numpy() * scale_B[:, None] + center_B[:, None]
        return np.repeat(new_BH.astype(np.float32)[..., None], len(quantile_levels), axis=-1)

    def hidden_states(self, contexts: list[np.ndarray]) -> Tensor:
        """The last ones, one a step."""
        values_BL, mask_BL, *_ = self._scaled(contexts)
        return self.module(values_BL, attention_mask=mask_BL, output_hidden_states=True).hidden_states[-1]

    def num_tokens(self, num_steps: int) -> int:
        return num_steps

    def embedded_steps(self, inputs: Sequence[ForecastInput]) -> int:
        return self._limit

    def route(
        self, inputs: Sequence[ForecastInput], *, batch_size: int = 256, context_length: int | None = None
    ) -> ExpertChoices:
        """See `models.family.RoutedForecaster`: every step of a row goes its own way, in every layer."""
        arch = Architecture.of(self.module)
        if arch.use_dense:
            raise ValueError("this model has no experts (use_dense is true), so there is no routing to tell of.")
        rows = self.rows(inputs, self.num_context_steps(inputs, context_length)).contexts

        def run(contexts: list[np.ndarray]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
            values_BL, mask_BL, *_ = self._scaled(contexts)
            output = self.module(values_BL, attention_mask=mask_BL, output_router_logits=True)
            step_BL = torch.ones_like(values_BL) if mask_BL is None else mask_BL.to(values_BL.dtype)
            chosen_BME = _sum_over_steps(F.one_hot(output.router_choices, arch.num_experts).sum(-2), step_BL)
            probability_BME = _sum_over_steps(output.router_logits.softmax(-1), step_BL)
            return zip(chosen_BME, probability_BME / step_BL.sum(1).cpu().numpy()[:, None, None], strict=True)

        shape = (len(rows), arch.num_hidden_layers, arch.num_experts)
        chosen_RME, probability_RME = np.empty(shape, np.int64), np.empty(shape, np.float32)
        for row, (chosen_ME, probability_ME) in enumerate(self.by_batches(rows, batch_size, run)):
            chosen_RME[row], probability_RME[row] = chosen_ME, probability_ME
        return ExpertChoices(chosen_RME, probability_RME, arch.num_experts_per_tok)

    def on_scaled_data(self) -> Self:
        """One that takes values as they are, because they were brought to unit scale before."""
        return type(self)(self.module, scales=False)

    def num_context_steps(
        self, inputs: Sequence[ForecastInput], context_length: int | None, prediction_length: int | None = None
    ) -> int:
        """Context steps beside a forecast of `prediction_length` steps."""
        if prediction_length is None:
            return super().num_context_steps(inputs, context_length)
        longest = max((x.context_RC.shape[1] for x in inputs), default=0)
        is_chosen = context_length is not None and context_length != self.context_length
        if self.module.protocol == "reference" and not is_chosen:
            return max(longest, 1)
        room = context_room(self._limit, prediction_length, 0 if is_chosen else longest)
        if context_length is None or not is_chosen:
            return room
        if context_length < 1:
            raise ValueError(f"context_length must be at least 1, got {context_length}.")
        if context_length > room and self.module.protocol == "standard":
            raise ValueError(
                f"context_length {context_length} and prediction_length {prediction_length} are "
                f"{context_length + prediction_length} steps, and the model takes {self._limit} "
                "(max_position_embeddings); shorten one."
            )
        return context_length

    @subnormals.kept()
    def _scaled(self, contexts: list[np.ndarray]) -> tuple[Tensor, Tensor | None, np.ndarray, np.ndarray]:
        """Values (B, L) that the model reads, zeros before shorter rows; the mask of what is not, none where all are
        equally long; and each row's centre and scale."""
        rows = [self._scaled_row(x_L) for x_L in contexts]
        values_BL = left_padded([values_L for values_L, _, _ in rows], 0.0)
        mask_BL = np.arange(values_BL.shape[1])[::-1] < np.array([len(x_L) for x_L in contexts])[:, None]
        mask = None if mask_BL.all() else to_device(mask_BL, self.device)
        center_B, scale_B = (np.array([row[place] for row in rows]) for place in (1, 2))
        return to_device(values_BL, self.device), mask, center_B, scale_B

    def _scaled_row(self, x_L: np.ndarray) -> tuple[np.ndarray, float, float]:
        """float32 values with nothing missing, centre and scale."""
        observed_L = ~np.isnan(x_L)
        if not observed_L.any():
            return np.zeros(1, np.float32), 0.0, 1.0
        seen = x_L[observed_L].astype(np.float64)
        center, scale = (float(seen.mean()), _deviation(seen)) if self._scales else (0.0, 1.0)
        # In double precision: a level far above the deviation takes no digits off it, and nothing overflows.
        filled_L = last_observed(x_L[None], observed_L[None])[0].astype(np.float64)
        return ((filled_L - center) / scale).astype(np.float32), center, scale


def _sum_over_steps(x_MNE: Tensor, step_BL: Tensor) -> np.ndarray:
    """(B, M, E): of each row, over its steps (1 where there is one), the N = B*L tokens of all rows."""
    return torch.einsum("mble,bl->bme", x_MNE.unflatten(1, step_BL.shape).float(), step_BL).cpu().numpy()


def _deviation(seen: np.ndarray) -> float:
    """As torch.std has it, with one degree of freedom less; 1 for a constant."""
    return float(seen.std(ddof=1)) or 1.0 if len(seen) > 1 else 1.0
