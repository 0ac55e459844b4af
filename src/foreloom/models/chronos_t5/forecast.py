"""Chronos-T5 answers forecasts: sampled paths, long horizons part by part, quantiles of the samples.

Axes: V target rows of an input, B rows of a batch, N samples a row, L context steps, H horizon steps, E experts, K
experts a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_t5.architecture import architecture_of_module
from foreloom.models.chronos_t5.experts import SampleRouting
from foreloom.models.chronos_t5.generate import generate
from foreloom.models.chronos_t5.sampling import Sampling, draws
from foreloom.models.chronos_t5.tokenizer import Tokenizer
from foreloom.models.chronos_t5.usage import ExpertUsage, RoutingInfo
from foreloom.models.common.answering import answering
from foreloom.models.common.contexts import target_rows, usable_steps
from foreloom.models.common.rows import batches_by_length, last_observed, left_padded
from foreloom.models.common.transfer import to_device
from foreloom.models.family import ExpertChoices

MOST_STEPS = 32768
"""Most context steps of one forward, which bounds the memory of attention."""
MOST_LOGITS = 2**27
"""Most numbers in the logits of one step, samples times tokens: half a gigabyte."""
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class ChronosT5Forecaster:
    """Forecasts with a Chronos-T5 module; the module keeps its device and, outside the calls, its training mode.

    The model is univariate: covariates are passed over. What it draws depends on each series and `sampling.seed` alone,
    so a forecast repeats, whatever else is in the batch.
    """

    is_autoregressive = False
    """Chronos-T5 was trained for one part; longer horizons are less sure."""

    def __init__(self, module: nn.Module, sampling: Sampling | None = None) -> None:
        self.module = module
        self.architecture = architecture_of_module(module)
        self.sampling = sampling or Sampling.of(self.architecture)
        self.quantile_levels: tuple[float, ...] = DECILES
        self.context_length = self.architecture.context_length
        self.prediction_length = self.architecture.prediction_length
        self.usage = ExpertUsage(self.architecture.num_experts) if self.architecture.use_moe else None
        """Counted over all forecasts since it was made; None without experts."""

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
        """See `models.family.Forecaster`: the empirical quantiles of the samples, linear between them.

        `batch_size` counts series; each has `sampling.num_samples` paths. ValueError for cross_learning.
        """
        if cross_learning:
            raise ValueError("cross_learning: Chronos-T5 forecasts each series on its own; leave it out.")
        with np.errstate(invalid="ignore", over="ignore"):  # of samples beyond float32; `Model` tells of such forecasts
            samples = self.predict(inputs, prediction_length, batch_size=batch_size, context_length=context_length)
            return [
                np.moveaxis(np.quantile(x_VNH, quantile_levels, axis=1), 0, -1).astype(np.float32) for x_VNH in samples
            ]

    def predict(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int | None = None,
        *,
        num_samples: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        batch_size: int = 256,
        context_length: int | None = None,
    ) -> list[np.ndarray]:
        """Sampled paths, float32 (targets, num_samples, prediction_length) an input.

        Settings that are None are those of the forecaster, by default the checkpoint's. Beyond the model's own horizon
        the median over the samples is appended to the context and forecasting goes on from there (Chronos).
        """
        changes = {"num_samples": num_samples, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        return self._predict(inputs, prediction_length, changes, batch_size, context_length)[0]

    def predict_with_routing_info(
        self, inputs: Sequence[ForecastInput], prediction_length: int | None = None, **options: Any
    ) -> tuple[list[np.ndarray], RoutingInfo]:
        """`predict`, with its options, and where each target row was sent, in their order, from its observed past.

        ValueError for a model without experts.
        """
        self._refuse_without_routing(inputs)
        batch_size, context_length = options.pop("batch_size", 256), options.pop("context_length", None)
        samples, routing = self._predict(inputs, prediction_length, options, batch_size, context_length)
        assert routing is not None
        return samples, RoutingInfo.of(routing)

    def route(
        self, inputs: Sequence[ForecastInput], *, batch_size: int = 256, context_length: int | None = None
    ) -> ExpertChoices:
        """See `models.family.RoutedForecaster`. Contexts are encoded and nothing is decoded; `usage` does not count."""
        self._refuse_without_routing(inputs)
        rows, _ = self._rows(inputs, usable_steps(inputs, context_length, self.context_length))
        routed: list[tuple[list[int], SampleRouting]] = []
        with answering(self.module):
            for chosen in batches_by_length([len(row) for row in rows], batch_size, MOST_STEPS):
                id_BS, mask_BS, _ = self._encoded([rows[i] for i in chosen])
                routed.append((chosen, self.module(id_BS, mask_BS).memory.routing))
        info = RoutingInfo.of(_in_order(routed))
        chosen_RE = np.zeros(info.router_probs.shape, np.int64)
        np.put_along_axis(chosen_RE, info.expert_indices, 1, axis=1)
        return ExpertChoices(chosen_RE[:, None], info.router_probs[:, None], info.num_active_experts)

    @property
    def max_steps(self) -> int:
        """Most rows of one forward times the longest of their contexts; a call that holds more is cut up."""
        return MOST_STEPS

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        """The encoder's states (targets, tokens, D) an input: one a step from the first observed one of any of its
        targets, and one for the end marker. Tokens before a target's own first observed step are 0."""
        rows, parts = self._rows(inputs, self.context_length)
        hidden: list[np.ndarray] = [np.empty(0)] * len(rows)
        with answering(self.module):
            for chosen in batches_by_length([len(row) for row in rows], batch_size, MOST_STEPS):
                id_BS, mask_BS, _ = self._encoded([rows[i] for i in chosen])
                num_more = id_BS.shape[1] - max(len(rows[i]) for i in chosen)
                for i, hidden_SD in zip(chosen, self._states(id_BS, mask_BS).float().cpu().numpy(), strict=True):
                    hidden[i] = hidden_SD[-(len(rows[i]) + num_more) :]
        return [left_padded(hidden[part], 0.0) for part in parts]

    def on_scaled_data(self) -> Self:
        """Itself: the tokenizer scales every context anyway."""
        return self

    def _predict(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int | None,
        changes: dict[str, Any],
        batch_size: int,
        context_length: int | None,
    ) -> tuple[list[np.ndarray], SampleRouting | None]:
        """Samples an input, and the routing of all target rows."""
        horizon = self.prediction_length if prediction_length is None else prediction_length
        sampling = self.sampling.changed(changes)
        rows, parts = self._rows(inputs, usable_steps(inputs, context_length, self.context_length))
        paths_RNH = np.empty((len(rows), sampling.num_samples, horizon), np.float32)
        routed: list[tuple[list[int], SampleRouting]] = []
        most_rows = max(1, MOST_LOGITS // (sampling.num_samples * self.architecture.n_tokens))
        with answering(self.module):
            for chosen in batches_by_length([len(row) for row in rows], min(batch_size, most_rows), MOST_STEPS):
                paths_RNH[chosen], routing = self._paths([rows[i] for i in chosen], horizon, sampling)
                if routing is not None and self.usage is not None:
                    self.usage.note(routing)
                    routed.append((chosen, routing))
        return [paths_RNH[part] for part in parts], _in_order(routed) if routed else None

    def _paths(
        self, contexts: list[np.ndarray], horizon: int, sampling: Sampling
    ) -> tuple[np.ndarray, SampleRouting | None]:
        """(B, N, H) and the routing of the contexts as they came."""
        keys, done, parts, first = contexts, 0, [], None
        while done < horizon:
            num_steps = min(horizon - done, self.prediction_length)
            id_BS, mask_BS, scale_B = self._encoded(contexts)
            draw_BNH = draws(keys, sampling.num_samples, done, num_steps, sampling.seed)
            token_BNH, routing = generate(self.module, id_BS, mask_BS, draw_BNH, sampling)
            first = routing if first is None else first
            parts.append(self._tokenizer.decode(token_BNH.cpu(), scale_B).numpy())
            done += num_steps
            if done >= horizon:
                break
            medians_BH = np.median(parts[-1], axis=1)
            contexts = [np.concatenate(pair)[-self.context_length :] for pair in zip(contexts, medians_BH, strict=True)]
        return np.concatenate(parts, axis=2), first

    def _states(self, id_BS: Tensor, mask_BS: Tensor | None) -> Tensor:
        """(B, S, D): of the encoder, or of the decoder where that is all there is."""
        if self.architecture.model_type == "causal":
            return self.module(id_BS, mask_BS, output_hidden_states=True).last_hidden_state
        return self.module(id_BS, mask_BS).memory.hidden_BSD

    def _encoded(self, contexts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Tokens (B, S) and mask on the device, scale (B,) on the CPU."""
        # Of each context alone, so that its last bit does not tell of the neighbours'.
        scale_B = torch.cat([self._tokenizer.scale(torch.from_numpy(x_L)[None]) for x_L in contexts])
        tokens = self._tokenizer.encode_context(torch.from_numpy(left_padded(contexts, np.nan)), scale_B)
        device = next(self.module.parameters()).device
        mask_BS = None if tokens.mask_RS.all() else to_device(tokens.mask_RS.numpy(), device)
        return to_device(tokens.id_RS.numpy(), device), mask_BS, tokens.scale_R

    def _rows(self, inputs: Sequence[ForecastInput], context_length: int) -> tuple[list[np.ndarray], list[slice]]:
        """The target rows of all inputs one after another, from their first observed step on, and which are whose."""
        rows, parts = target_rows(inputs, context_length)
        if self.architecture.model_type == "causal":  # which was trained with every step there
            rows = [_filled(row) for row in rows]
        return rows, parts

    def _refuse_without_routing(self, inputs: Sequence[ForecastInput]) -> None:
        if self.usage is None:
            raise ValueError("this model has no experts (use_moe is false), so there is no routing to tell of.")
        if not inputs:
            raise ValueError("there is no series to route: inputs is empty.")

    @property
    def _tokenizer(self) -> Tokenizer:
        return cast(Tokenizer, self.module.tokenizer)


def _in_order(routed: Sequence[tuple[Sequence[int], SampleRouting]]) -> SampleRouting:
    """The routing of all rows, of batches that say which rows are theirs."""
    place_R = np.argsort(np.concatenate([rows for rows, _ in routed]))
    batches = zip(*(routing for _, routing in routed), strict=True)
    return SampleRouting(*(torch.cat(parts)[to_device(place_R, parts[0].device)] for parts in batches))


def _filled(x_L: np.ndarray) -> np.ndarray:
    """The last observed value where one is missing; 0 where nothing is observed."""
    filled_L = last_observed(x_L[None], ~np.isnan(x_L)[None])[0]
    return np.where(np.isnan(filled_L), np.float32(0), filled_L)
