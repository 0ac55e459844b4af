"""Chronos-2 answers forecasts: rows in batches, horizons beyond one forward unrolled, any quantile level.

Axes: B rows, U unrolled levels (paths), L context steps, H horizon steps, Q levels of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos2.architecture import Architecture
from foreloom.models.chronos2.encoder import layout_of
from foreloom.models.common.forecasting import (
    in_float32,
    inference,
    interpolate,
    interpolate_levels,
    on_level,
    refuse_cross_learning,
    told,
    usable_steps,
)
from foreloom.models.common.rows import batches, to_device, without_leading_padding

UNROLLED_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Chronos2Forecaster:
    """Forecasts with a Chronos-2 module; the module keeps its device and, outside the calls, its training mode."""

    is_autoregressive = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.architecture = Architecture.of(module)
        self.is_univariate = not self.architecture.group_attention
        self.quantile_levels = self.architecture.quantiles
        self.context_length = self.architecture.context_length
        self.prediction_length = self.architecture.max_output_patches * self.architecture.input_patch_size

    def predict_quantiles(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int,
        quantile_levels: Sequence[float],
        *,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        unrolled_quantiles: Sequence[float] | None = None,
    ) -> list[np.ndarray]:
        """See `models.family.Forecaster`. `cross_learning` lets all rows of a batch see each other. Horizons beyond one
        forward follow the paths of the model's levels `unrolled_quantiles` (see `unrolled_levels` for none).

        Levels the model was not trained for are interpolated, flat beyond its outermost. Those of a model that begins
        from naive forecasts ascend; those of others are left as they are, as in the reference. Horizons beyond
        `max_output_patches` are unrolled. ValueError for a context beyond the limit where `context_length` does not
        say how much of it to use.
        """
        if self.is_univariate:
            refuse_cross_learning("this Chronos-2 (group_attention: false)", cross_learning)
            inputs = [one.targets_alone() for one in inputs]
        seen, levels = self._in_float32(inputs, context_length)
        order = list(range(len(inputs)))
        if not cross_learning:
            # Inputs do not see each other, so they may be batched by length, which saves padding.
            order.sort(key=lambda i: seen[i].context_RC.shape[1])
        answers: dict[int, np.ndarray] = {}
        with inference(self.module):
            parts = [order[rows] for rows in batches([len(seen[i].context_RC) for i in order], batch_size)]
            for chunk in told(parts, len(order)):
                contexts = [seen[i].context_RC for i in chunk]
                group_ids = group_ids_of(contexts)
                quantiles_BQH = self._predict(
                    stacked_contexts(contexts),
                    stacked_futures([seen[i] for i in chunk], prediction_length),
                    np.zeros_like(group_ids) if cross_learning else group_ids,
                    unrolled_quantiles,
                )
                quantiles_BHQ = quantiles_BQH.transpose(1, 2)
                if self.architecture.from_naive:  # on a clean season its quantiles lie close and would cross
                    quantiles_BHQ = quantiles_BHQ.sort(-1).values
                values = interpolate_levels(quantiles_BHQ, self.quantile_levels, quantile_levels).cpu().numpy()
                first_rows = np.flatnonzero(np.diff(group_ids, prepend=-1))
                for i, row in zip(chunk, first_rows, strict=True):
                    answers[i] = on_level(values[row : row + inputs[i].num_targets], levels[i])
        return [answers[i] for i in range(len(inputs))]

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        """Final hidden states (rows, N + R + 1, D) an input: context patches, register token, one future patch.

        N counts the patches of the longest context in the batch; tokens of padding hold arbitrary values.
        """
        contexts = [one.context_RC for one in self._in_float32(inputs, None)[0]]
        answers: list[np.ndarray] = []
        with inference(self.module):
            for rows in batches([len(context) for context in contexts], batch_size):
                group_ids = group_ids_of(contexts[rows])
                layout = layout_of(group_ids, len(group_ids), self._device, all_observed=False)
                context = to_device(stacked_contexts(contexts[rows]), self._device)
                output = self.module(context, num_output_patches=1, layout=layout, output_hidden_states=True)
                hidden = output.last_hidden_state.float().cpu().numpy()
                answers += np.split(hidden, np.flatnonzero(np.diff(group_ids)) + 1)
        return answers

    def on_scaled_data(self) -> Self:
        """Itself: the model standardises every context anyway."""
        return self

    def _predict(
        self,
        context_BL: np.ndarray,
        future_BH: np.ndarray,
        group_ids: np.ndarray,
        unrolled: Sequence[float] | None,
    ) -> Tensor:
        """Quantiles (B, Q, H) of one batch."""
        context_BL = without_leading_padding(context_BL)
        has_covariates = not np.isnan(future_BH).all()
        all_observed = not np.isnan(context_BL).any()
        patch_size = self.architecture.input_patch_size

        def forward(context: Tensor, future: Tensor, ids: Tensor, num_patches: int) -> Tensor:
            output = self.module(
                context,
                future_covariates=future[:, : num_patches * patch_size] if has_covariates else None,
                num_output_patches=num_patches,
                layout=layout_of(ids.numpy(), len(ids), self._device, all_observed=all_observed),
            )
            return output.quantile_preds

        return unroll(
            forward,
            to_device(context_BL, self._device),
            to_device(future_BH, self._device),
            torch.from_numpy(group_ids),
            levels=self.quantile_levels,
            patch_size=patch_size,
            max_patches=self.architecture.max_output_patches,
            context_length=self.context_length,
            unrolled=unrolled,
        )

    def _in_float32(
        self, inputs: Sequence[ForecastInput], context_length: int | None
    ) -> tuple[list[ForecastInput], list[np.ndarray | None]]:
        """Each input, cut to `context_length` where that is given, and the level that was taken off its targets."""
        num_steps = usable_steps(inputs, context_length, self.context_length)
        narrow = [in_float32(x, num_steps) for x in inputs]
        return [x for x, _ in narrow], [level_V for _, level_V in narrow]

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device


def group_ids_of(contexts: Sequence[np.ndarray]) -> np.ndarray:
    """int64 (B,): every row's input, counted from 0."""
    return np.repeat(np.arange(len(contexts)), [len(context) for context in contexts])


def stacked_contexts(contexts: Sequence[np.ndarray]) -> np.ndarray:
    """float32 (B, longest), NaN before the rows that are shorter."""
    longest = max(context.shape[1] for context in contexts)
    if all(context.shape[1] == longest for context in contexts):
        return np.concatenate(contexts)
    padded = np.full((sum(map(len, contexts)), longest), np.nan, np.float32)
    row = 0
    for context in contexts:
        padded[row : row + len(context), longest - context.shape[1] :] = context
        row += len(context)
    return padded


def stacked_futures(inputs: Sequence[ForecastInput], prediction_length: int) -> np.ndarray:
    """float32 (B, prediction_length): known values, NaN where an input knows nothing (any more)."""
    if all(x.future_RH.shape[1] == prediction_length for x in inputs):
        return np.concatenate([x.future_RH for x in inputs])
    stacked = np.full((sum(len(x.future_RH) for x in inputs), prediction_length), np.nan, np.float32)
    row = 0
    for x in inputs:
        known = x.future_RH[:, :prediction_length]
        stacked[row : row + len(known), : known.shape[1]] = known
        row += len(known)
    return stacked


Forward = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""forward(context (B, L), future (B, H), group ids (B,), patches) -> quantiles (B, Q, patches * P)."""


def unrolled_levels(levels: Sequence[float], asked: Sequence[float] | None = None) -> tuple[float, ...]:
    """The levels whose paths are followed: those asked for, in order, which must be the model's own; else the nine
    deciles, or a model's own between 0.1 and 0.9 if it lacks one."""
    if asked is not None:
        if not asked or not set(asked) <= set(levels):
            raise ValueError(
                f"unrolled_quantiles {list(asked)}: paths are followed at levels of the model, {list(levels)}; name "
                "some of these."
            )
        return tuple(sorted(set(asked)))
    if set(UNROLLED_LEVELS) <= set(levels):
        return UNROLLED_LEVELS
    inner = tuple(level for level in levels if 0.1 <= level <= 0.9)
    if not inner:
        raise ValueError(
            f"the horizon needs unrolling, and none of the model's levels {list(levels)} lies between 0.1 and 0.9; "
            "ask for a shorter horizon, or raise the model's max_output_patches."
        )
    return inner


def unroll(
    forward: Forward,
    context_BL: Tensor,
    future_BH: Tensor,
    group_ids: Tensor,
    *,
    levels: Sequence[float],
    patch_size: int,
    max_patches: int,
    context_length: int,
    unrolled: Sequence[float] | None = None,
) -> Tensor:
    """Quantiles (B, Q, H) of a horizon of any length, H being the steps of `future_BH` (NaN: unknown).

    After the first forward every row becomes U paths. A path appends the forecast at its level (known covariates
    override it), forecasts on, and the U * Q values of a step are merged as samples weighted by the level mass each one
    stands for. Paths of different levels never share a group.
    """
    num_rows, horizon = future_BH.shape
    paths = () if unrolled is None else unrolled_levels(levels, unrolled)
    num_patches = lambda steps: min(-(-steps // patch_size), max_patches)
    forecast = forward(context_BL, future_BH, group_ids, num_patches(horizon))
    done = forecast.shape[-1]
    if done >= horizon:
        return forecast[..., :horizon]
    paths = paths or unrolled_levels(levels)
    num_paths = len(paths)
    level_Q, level_U = forecast.new_tensor(levels), forecast.new_tensor(paths)
    weight_UQ = torch.outer(level_mass(level_U), level_mass(level_Q)).flatten()
    path_ids = (group_ids[:, None] * num_paths + torch.arange(num_paths, device=group_ids.device)).flatten()
    context_BUL = context_BL[:, None].expand(-1, num_paths, -1)
    future_BUH = future_BH[:, None].expand(-1, num_paths, -1)
    last, merged = forecast, [forecast]
    while done < horizon:
        step = last.shape[-1]
        path_BUH = interpolate_levels(last.transpose(1, 2), levels, paths).transpose(1, 2)
        known_BUH = future_BUH[..., :step]
        context_BUL = torch.cat([context_BUL, torch.where(known_BUH.isnan(), path_BUH, known_BUH)], -1)
        context_BUL, future_BUH = context_BUL[..., -context_length:], future_BUH[..., step:]
        out = forward(context_BUL.flatten(0, 1), future_BUH.flatten(0, 1), path_ids, num_patches(horizon - done))
        samples_BHX = out.unflatten(0, (num_rows, num_paths)).flatten(1, 2).transpose(1, 2)
        last = weighted_quantiles(samples_BHX, weight_UQ, level_Q).transpose(1, 2)
        merged.append(last)
        done += last.shape[-1]
    return torch.cat(merged, -1)[..., :horizon]


def level_mass(level_K: Tensor) -> Tensor:
    """Probability mass each level stands for: half the distance between its neighbours, 0 and 1 as the outer ones."""
    edges = torch.cat([level_K.new_zeros(1), level_K, level_K.new_ones(1)])
    mass = (edges[2:] - edges[:-2]) / 2
    return mass / mass.sum()


def weighted_quantiles(samples: Tensor, weight: Tensor, level_Q: Tensor) -> Tensor:
    """(..., X) samples with weights (X,) that sum to 1 -> (..., Q): the cumulative weights are the level axis."""
    samples, order = samples.sort(dim=-1)
    cumulative = weight[order].cumsum(-1).clamp(max=1.0)
    return interpolate(samples, cumulative, level_Q.expand(*samples.shape[:-1], -1))
