"""Chronos-T5 answers forecasts: sampled paths, long horizons part by part, quantiles of the samples.

Axes: V target rows of an input, R rows of all inputs, B rows of a batch, N samples a row, L context steps, H horizon
steps, E experts, K experts a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.experts import SampleRouting
from foreloom.models.chronos_t5.generate import Sampling, draws, generate
from foreloom.models.chronos_t5.tokenizer import Tokenizer
from foreloom.models.common.forecasting import TargetRows, UnivariateForecaster
from foreloom.models.common.rows import last_observed, left_padded, to_device
from foreloom.models.family import ExpertChoices
from foreloom.objectives.router import load_figures

MOST_LOGITS = 2**27
"""Most numbers in the logits of one step, samples times tokens: half a gigabyte."""
LEVELS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)
"""That scores ask for. Samples have them all."""


class RoutingInfo(NamedTuple):
    """Routing of the rows of a forecast."""

    router_probs: np.ndarray
    """float32 (R, E)."""
    expert_indices: np.ndarray
    """int64 (R, K), the likeliest first."""
    top_k_probs: np.ndarray
    """float32 (R, K), the weights of those: probabilities divided by their sum."""

    @property
    def num_experts(self) -> int:
        return self.router_probs.shape[1]

    @property
    def num_active_experts(self) -> int:
        return self.expert_indices.shape[1]

    @classmethod
    def of(cls, routing: SampleRouting) -> RoutingInfo:
        probability_RE = routing.logits_BE.softmax(-1)
        return cls(*(x.cpu().numpy() for x in (probability_RE, routing.expert_BK, routing.weight_BK)))

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[np.ndarray, ...]]) -> RoutingInfo:
        """Of rows that were taken apart, each (router_probs, expert_indices, top_k_probs)."""
        return cls(*map(np.stack, zip(*rows, strict=True)))


@dataclass(frozen=True)
class UsageStatistics:
    """How a model's experts were used."""

    num_samples: int
    counts: tuple[int, ...]
    """Samples that each expert took part in."""
    shares: tuple[float, ...]
    """Of all choices."""
    entropy: float
    """Of the shares over log E: 1 is even use, 0 one expert for all."""


class ExpertUsage:
    """Counts as forecasts are made."""

    def __init__(self, num_experts: int) -> None:
        self._num_experts = num_experts
        self.reset()

    def note(self, routing: RoutingInfo) -> None:
        """Count the rows of a batch."""
        self._count_E += np.bincount(routing.expert_indices.ravel(), minlength=self._num_experts)
        self._num_samples += len(routing.expert_indices)

    def statistics(self) -> UsageStatistics:
        """Since the last `reset`."""
        shares = self._count_E / max(int(self._count_E.sum()), 1)
        return UsageStatistics(
            num_samples=self._num_samples,
            counts=tuple(self._count_E.tolist()),
            shares=tuple(shares.tolist()),
            entropy=load_figures(self._count_E[None].astype(np.float64))["expert_entropy"],
        )

    def reset(self) -> None:
        """Count from 0."""
        self._count_E = np.zeros(self._num_experts, np.int64)
        self._num_samples = 0


class ChronosT5Forecaster(UnivariateForecaster):
    """Forecasts with a Chronos-T5 module: the empirical quantiles of sampled paths, linear between them.

    What it draws depends on each series and `sampling.seed` alone, so a forecast repeats, whatever else is in the
    batch. Chronos-T5 was trained for one part; longer horizons are less sure.
    """

    model_name = "Chronos-T5"
    max_steps = 32768

    def __init__(self, module: nn.Module, sampling: Sampling | None = None) -> None:
        super().__init__(module)
        self.architecture = Architecture.of(module)
        self.sampling = sampling or Sampling.of(self.architecture)
        self.quantile_levels = LEVELS
        self.context_length = self.architecture.context_length
        self.prediction_length = self.architecture.prediction_length
        self.usage = ExpertUsage(self.architecture.num_experts) if self.architecture.use_moe else None
        """Counted over all forecasts since it was made; None without experts."""

    def predict_quantiles(self, *arguments: Any, batch_size: int = 256, **options: Any) -> list[np.ndarray]:
        """See `models.family.Forecaster`. `batch_size` counts series; each has `sampling.num_samples` paths."""
        with np.errstate(invalid="ignore", over="ignore"):  # of samples beyond float32; `Model` tells of such forecasts
            return super().predict_quantiles(*arguments, batch_size=self._room(batch_size, self.sampling), **options)

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
        samples, routed = self._predict(inputs, prediction_length, options, batch_size, context_length)
        return samples, RoutingInfo.of_rows(routed)

    def route(
        self, inputs: Sequence[ForecastInput], *, batch_size: int = 256, context_length: int | None = None
    ) -> ExpertChoices:
        """See `models.family.RoutedForecaster`. Contexts are encoded and nothing is decoded; `usage` does not count."""
        self._refuse_without_routing(inputs)
        rows = self.rows(inputs, self.num_context_steps(inputs, context_length)).contexts

        def run(contexts: list[np.ndarray]) -> Iterable[tuple[np.ndarray, ...]]:
            id_BS, mask_BS, _ = self._encoded(contexts)
            return zip(*RoutingInfo.of(self.module(id_BS, mask_BS).memory.routing), strict=True)

        info = RoutingInfo.of_rows(self.by_batches(rows, batch_size, run))
        chosen_RE = np.zeros(info.router_probs.shape, np.int64)
        np.put_along_axis(chosen_RE, info.expert_indices, 1, axis=1)
        return ExpertChoices(chosen_RE[:, None], info.router_probs[:, None], info.num_active_experts)

    def forecast(
        self, contexts: list[np.ndarray], prediction_length: int, quantile_levels: Sequence[float]
    ) -> np.ndarray:
        paths_BNH, _ = self._paths(contexts, prediction_length, self.sampling)
        return np.moveaxis(np.quantile(paths_BNH, quantile_levels, axis=1), 0, -1).astype(np.float32)

    def hidden_states(self, contexts: list[np.ndarray]) -> Tensor:
        """The encoder's, or the decoder's where that is all there is: one a step, and one for the end marker."""
        id_BS, mask_BS, _ = self._encoded(contexts)
        if self.architecture.model_type == "causal":
            return self.module(id_BS, mask_BS, output_hidden_states=True).last_hidden_state
        return self.module(id_BS, mask_BS).memory.hidden_BSD

    def num_tokens(self, num_steps: int) -> int:
        return num_steps + (self.architecture.use_eos_token and self.architecture.model_type == "seq2seq")

    def rows(self, inputs: Sequence[ForecastInput], num_steps: int) -> TargetRows:
        """Of a causal model, which was trained with every step there, with missing values filled."""
        rows = super().rows(inputs, num_steps)
        is_causal = self.architecture.model_type == "causal"
        return rows._replace(contexts=[_filled(row) for row in rows.contexts]) if is_causal else rows

    def embedded_steps(self, inputs: Sequence[ForecastInput]) -> int:
        return self.context_length

    def _predict(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int | None,
        changes: dict[str, Any],
        batch_size: int,
        context_length: int | None,
    ) -> tuple[list[np.ndarray], list[Any]]:
        """Samples an input, and the routing of each target row, taken apart."""
        horizon = self.prediction_length if prediction_length is None else prediction_length
        sampling = self.sampling.changed(changes)
        rows = self.rows(inputs, self.num_context_steps(inputs, context_length))

        def run(contexts: list[np.ndarray]) -> Iterable[tuple[np.ndarray, Any]]:
            paths_BNH, routing = self._paths(contexts, horizon, sampling)
            return zip(
                paths_BNH, [None] * len(contexts) if routing is None else zip(*routing, strict=True), strict=True
            )

        sampled = self.by_batches(rows.contexts, self._room(batch_size, sampling), run)
        return rows.answers([paths_NH for paths_NH, _ in sampled]), [routing for _, routing in sampled]

    def _paths(
        self, contexts: list[np.ndarray], horizon: int, sampling: Sampling
    ) -> tuple[np.ndarray, RoutingInfo | None]:
        """(B, N, H) and the routing of the contexts as they came, which `usage` counts."""
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
        info = None if first is None else RoutingInfo.of(first)
        if info is not None and self.usage is not None:
            self.usage.note(info)
        return np.concatenate(parts, axis=2), info

    def _encoded(self, contexts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Tokens (B, S) and mask on the device, scale (B,) on the CPU."""
        # Of each context alone, so that its last bit does not tell of the neighbours'.
        scale_B = torch.cat([self._tokenizer.scale(torch.from_numpy(x_L)[None]) for x_L in contexts])
        tokens = self._tokenizer.encode_context(torch.from_numpy(left_padded(contexts, np.nan)), scale_B)
        mask_BS = None if tokens.mask_RS.all() else to_device(tokens.mask_RS.numpy(), self.device)
        return to_device(tokens.id_RS.numpy(), self.device), mask_BS, tokens.scale_R

    def _room(self, batch_size: int, sampling: Sampling) -> int:
        """As many rows of the batch as the logits of a step have room for."""
        return min(batch_size, max(1, MOST_LOGITS // (sampling.num_samples * self.architecture.n_tokens)))

    def _refuse_without_routing(self, inputs: Sequence[ForecastInput]) -> None:
        if self.usage is None:
            raise ValueError("this model has no experts (use_moe is false), so there is no routing to tell of.")
        if not inputs:
            raise ValueError("there is no series to route: inputs is empty.")

    @property
    def _tokenizer(self) -> Tokenizer:
        return cast(Tokenizer, self.module.tokenizer)


def _filled(x_L: np.ndarray) -> np.ndarray:
    """The last observed value where one is missing; 0 where nothing is observed."""
    filled_L = last_observed(x_L[None], ~np.isnan(x_L)[None])[0]
    return np.where(np.isnan(filled_L), np.float32(0), filled_L)
