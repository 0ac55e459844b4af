"""Chronos-Bolt (Ansari, Turkmen, Shchur & Stella 2024): a T5 over patches whose decoder gives all steps at once.

Axes: B rows (one series each), C context steps, N patches, P steps of a patch, T = N + 1 tokens with a register token,
else N, D model width, Q quantile levels, H steps of the head.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.models.chronos_bolt.architecture import REG_TOKEN, START_TOKEN, Architecture
from foreloom.models.common.cpu import is_for_cpu
from foreloom.models.common.layers import ResidualBlock, pad_left, pad_right_to, patches
from foreloom.models.common.rows import to_device
from foreloom.models.common.standardize import Standardizer, standardizer_of
from foreloom.models.common.t5.stack import Decoder, Encoder
from foreloom.models.family import Tally
from foreloom.objectives.loss import Loss, Reduction, pinball


class ChronosBoltOutput(NamedTuple):
    """What forward returns; a tuple, so that hooks of sharded modules can walk it."""

    quantile_preds: Tensor
    """(B, Q, H) in the data's units. Levels may cross."""
    loss: Tensor | None = None
    """Scalar, normalised as chronos-forecasting reports it: mean over levels, sum over H, mean over rows."""
    objective: Loss | None = None
    """What training minimises; see `objective_of`."""
    loc: Tensor | None = None
    """(B, 1), mean of each context."""
    scale: Tensor | None = None
    """(B, 1), standard deviation of each context."""
    last_hidden_state: Tensor | None = None
    """(B, T, D) where asked for: the encoder's states."""
    token_mask: Tensor | None = None
    """bool (B, T) where asked for: tokens that stand for at least one observed step, or are always valid."""
    tally: Tally = MappingProxyType({})
    """Nothing but the objective is logged."""


class ChronosBoltModel(nn.Module):
    """The module behind amazon/chronos-bolt-*; its state dict carries the published names."""

    def __init__(self, arch: Architecture, reduction: Reduction = "tokens") -> None:
        super().__init__()
        self.architecture = arch
        self.reduction: Reduction = reduction
        activation, rate = arch.feed_forward_proj, arch.dropout_rate
        num_outputs = len(arch.quantiles) * arch.prediction_length
        self.shared = nn.Embedding(1 + arch.use_reg_token, arch.d_model)
        self.input_patch_embedding = ResidualBlock(2 * arch.input_patch_size, arch.d_ff, arch.d_model, activation, rate)
        self.encoder = Encoder(arch)
        self.decoder = Decoder(arch)
        self.output_patch_embedding = ResidualBlock(arch.d_model, arch.d_ff, num_outputs, activation, rate)

    def forward(
        self,
        context: Tensor,
        mask: Tensor | None = None,
        target: Tensor | None = None,
        target_mask: Tensor | None = None,
        *,
        all_observed: bool = False,
        output_hidden_states: bool = False,
    ) -> ChronosBoltOutput:
        """Forecast the steps after each row of `context`, as many as the head has.

        context (B, C): NaN is missing; the newest `context_length` steps are used. mask (B, C): 0 hides a step (the
        row's centre and spread still count it; only NaN is left out of those). target (B, <=H): gives a loss; steps of
        the head beyond it count nothing. target_mask: as mask. Both default to "not NaN". `all_observed`: the caller
        knows that every patch has an observed step, which spares an accelerator the look. ValueError for shapes that do
        not fit.
        """
        arch = self.architecture
        self._check(context, target)
        observed_BC = ~context.isnan() if mask is None else mask > 0
        context, observed_BC = context[:, -arch.context_length :], observed_BC[:, -arch.context_length :]
        standardizer = standardizer_of(context, arcsinh=False)
        # A step may be declared observed and still be NaN: it reads as the row's mean, 0.
        value_BC = standardizer.apply_where(observed_BC & ~context.isnan(), context)
        h_BTD, valid_BT = self._embed(value_BC, observed_BC)
        unmasked = all_observed or (is_for_cpu(valid_BT) and bool(valid_BT.all()))
        mask_BT = None if unmasked else valid_BT
        hidden_BTD = self.encoder(h_BTD, mask_BT)
        start_B1D = self.shared.weight[START_TOKEN].expand(len(context), 1, -1)
        state_BD = self.decoder(start_B1D, hidden_BTD, mask_BT)[:, 0]
        z_BQH = self.output_patch_embedding(state_BD).unflatten(-1, (len(arch.quantiles), -1))

        loss = objective = None
        if target is not None:
            loss, objective = self._loss(z_BQH, target, target_mask, standardizer)
        return ChronosBoltOutput(
            quantile_preds=standardizer.invert(z_BQH.transpose(0, 1)).transpose(0, 1),
            loss=loss,
            objective=objective,
            loc=standardizer.loc,
            scale=standardizer.scale,
            last_hidden_state=hidden_BTD if output_hidden_states else None,
            token_mask=valid_BT if output_hidden_states else None,
        )

    def _check(self, context: Tensor, target: Tensor | None) -> None:
        if context.ndim != 2 or not context.numel():
            raise ValueError(f"context must be (rows, steps), one of each at least, got shape {tuple(context.shape)}.")
        num_rows, horizon = len(context), self.architecture.prediction_length
        if target is not None and (target.ndim != 2 or len(target) != num_rows or target.shape[1] > horizon):
            raise ValueError(
                f"target has shape {tuple(target.shape)}; expected {num_rows} rows of at most {horizon} steps, which "
                "is what the head of this model has."
            )

    def _embed(self, value_BC: Tensor, observed_BC: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [patches N][REG] (B, T, D), and which of them are valid, bool (B, T): one of each row at least."""
        patch = self.architecture.input_patch_size
        value_BNP = patches(pad_left(value_BC, patch, 0.0), patch)
        observed_BNP = patches(pad_left(observed_BC, patch, False), patch)
        features = torch.cat([value_BNP, observed_BNP.to(value_BNP.dtype)], -1)
        tokens = self.input_patch_embedding(features.to(self.shared.weight.dtype))
        valid = observed_BNP.any(-1)
        if self.architecture.use_reg_token:
            reg = self.shared.weight[REG_TOKEN].expand(len(tokens), 1, -1)
            return torch.cat([tokens, reg.to(tokens.dtype)], 1), torch.cat([valid, valid.new_ones(len(valid), 1)], 1)
        # A row without any value is told by its last token, so that padding does not change its forecast.
        last = valid[:, -1:] | ~valid.any(-1, keepdim=True)
        return tokens, torch.cat([valid[:, :-1], last], 1)

    def _loss(
        self, z_BQH: Tensor, target: Tensor, mask: Tensor | None, standardizer: Standardizer
    ) -> tuple[Tensor, Loss]:
        """The reference's scalar and the objective, both in model units."""
        horizon = z_BQH.shape[-1]
        observed = ~target.isnan() if mask is None else (mask > 0) & ~target.isnan()
        target = pad_right_to(standardizer.apply_where(observed, target), horizon, 0.0)
        observed = pad_right_to(observed, horizon, False)
        levels = self.architecture.quantiles
        level_Q = to_device(np.array(levels, dtype=np.float32), z_BQH.device)
        loss_BH = pinball(z_BQH.float(), target, observed, level_Q) / len(levels)
        return published_loss(loss_BH), objective_of(loss_BH, observed, self.reduction)


def published_loss(loss_BH: Tensor) -> Tensor:
    """Scalar, as chronos-forecasting divides: summed over the horizon, the mean over rows, with a target or without."""
    return loss_BH.sum() / len(loss_BH)


def objective_of(loss_BH: Tensor, observed_BH: Tensor, reduction: Reduction) -> Loss:
    """Sum and count of a step-wise loss.

    "tokens": the count is that of observed steps, so neither masks nor a horizon shorter than the head's change the
    weight of a step. "reference": that of rows, so the mean is `published_loss`. A batch without a single target counts
    0 either way.
    """
    num_observed = observed_BH.sum()
    return Loss(loss_BH.sum(), num_observed if reduction == "tokens" else len(loss_BH) * (num_observed > 0))
