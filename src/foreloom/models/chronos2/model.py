"""Chronos-2 (Ansari et al. 2025): an encoder over patches of a series that forecasts all quantiles in one pass.

Axes: B rows (one variate each), C context steps, N context patches, P steps of a patch, n future patches, H = n*P
horizon steps, R = 1 with a register token else 0, T = N + R + n tokens, D model width, Q quantile levels.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.models.chronos2.architecture import Architecture
from foreloom.models.chronos2.encoder import Encoder, Layout, layout_of
from foreloom.models.chronos2.naive import NaiveMixture, naive_forecasts
from foreloom.models.common.cpu import is_for_cpu
from foreloom.models.common.layers import ResidualBlock, pad_left, pad_right_to, patches, rotary_table
from foreloom.models.common.rows import to_device
from foreloom.models.common.standardize import Standardizer, standardizer_of
from foreloom.models.family import Tally
from foreloom.objectives.loss import Loss, Reduction, pinball, reduce

REG_TOKEN = 1
"""Row of `shared` that holds the register token; row 0 is padding, never read."""


class Chronos2Output(NamedTuple):
    """What forward returns; a tuple, so that hooks of sharded modules can walk it."""

    quantile_preds: Tensor
    """(B, Q, H) in the data's units. Levels may cross."""
    loss: Tensor | None = None
    """Scalar, normalised as chronos-forecasting reports it: mean over H, sum over levels, mean over rows."""
    objective: Loss | None = None
    """What training minimises; see `objectives.loss.reduce`."""
    loc: Tensor | None = None
    """(B, 1), mean of each context."""
    scale: Tensor | None = None
    """(B, 1), standard deviation of each context."""
    last_hidden_state: Tensor | None = None
    """(B, T, D) where asked for."""
    token_mask: Tensor | None = None
    """bool (B, T) where asked for: tokens that stand for at least one observed step, or are always valid."""
    tally: Tally = MappingProxyType({})
    """Nothing but the objective is logged."""


class Future(NamedTuple):
    """What is known of the horizon, in model units."""

    value_BH: Tensor
    mask_BH: Tensor
    """bool, True where a covariate is known."""


class Chronos2Model(nn.Module):
    """The module behind amazon/chronos-2; its state dict carries the published names."""

    def __init__(self, arch: Architecture, reduction: Reduction = "tokens") -> None:
        super().__init__()
        self.architecture = arch
        self.reduction: Reduction = reduction
        patch, num_levels = arch.input_patch_size, len(arch.quantiles)
        activation, rate = arch.feed_forward_proj, arch.dropout_rate
        self.shared = nn.Embedding(1 + arch.use_reg_token, arch.d_model)
        self.input_patch_embedding = ResidualBlock(3 * patch, arch.d_ff, arch.d_model, activation, rate)
        self.encoder = Encoder(arch)
        self.output_patch_embedding = ResidualBlock(arch.d_model, arch.d_ff, num_levels * patch, activation, rate)
        self.naive_mixture = NaiveMixture(patch, arch.d_model) if arch.from_naive else None

    def forward(
        self,
        context: Tensor,
        context_mask: Tensor | None = None,
        group_ids: Tensor | None = None,
        future_covariates: Tensor | None = None,
        future_covariates_mask: Tensor | None = None,
        num_output_patches: int | None = None,
        future_target: Tensor | None = None,
        future_target_mask: Tensor | None = None,
        *,
        layout: Layout | None = None,
        output_hidden_states: bool = False,
    ) -> Chronos2Output:
        """Forecast `num_output_patches` patches after each row of `context`; as many as the target needs by default.

        context (B, C): NaN is missing; the newest `context_length` steps are used. context_mask (B, C): 0 hides a step
        (the row's centre and spread still count it; only NaN is left out of those). group_ids (B,): rows with equal ids
        see each other. future_covariates (B, <=H): known values, NaN where unknown. future_target (B, <=H): gives a
        loss. Masks default to "not NaN". `layout`: what `batch` prepared on the host in place of group_ids; without it
        ids on an accelerator are read back once. Raises ValueError for shapes that do not fit and for NaN in a future
        value that its mask declares known.
        """
        arch = self.architecture
        if num_output_patches is None:
            num_output_patches = 1 if future_target is None else -(-future_target.shape[1] // arch.input_patch_size)
        horizon = num_output_patches * arch.input_patch_size
        self._check(context, group_ids, future_covariates, future_target, horizon)
        observed_BC = ~context.isnan() if context_mask is None else context_mask > 0
        context, observed_BC = context[:, -arch.context_length :], observed_BC[:, -arch.context_length :]
        if not arch.group_attention:
            layout = Layout(len(context), (), all_observed=layout is not None and layout.all_observed)
        elif layout is None:
            ids = None if group_ids is None else group_ids.cpu().numpy()
            layout = layout_of(ids, len(context), context.device, all_observed=False)
        if layout.order is not None:
            context, observed_BC = context[layout.order], observed_BC[layout.order]
        standardizer = standardizer_of(context, arch.use_arcsinh)
        future = self._future(future_covariates, future_covariates_mask, standardizer, horizon, layout)

        # A step may be declared observed and still be NaN: it reads as the row's mean, 0.
        value_BC = standardizer.apply_where(observed_BC & ~context.isnan(), context)
        h_BTD, valid_BT = self._embed(value_BC, observed_BC, future)
        naive = None
        if self.naive_mixture is not None:
            naive = naive_forecasts(value_BC, observed_BC & ~context.isnan(), horizon)
            read_BnD = self.naive_mixture.read(naive)
            h_BTD = h_BTD + nn.functional.pad(read_BnD, (0, 0, h_BTD.shape[1] - num_output_patches, 0))
        rotary = rotary_table(h_BTD.shape[1], arch.d_kv, arch.rope_theta, h_BTD.device)
        num_last = None if output_hidden_states else num_output_patches
        # Elsewhere than on the CPU, looking whether anything is masked would stall the device: the layout says it.
        unmasked = layout.all_observed or (is_for_cpu(valid_BT) and bool(valid_BT.all()))
        hidden = self.encoder(h_BTD, rotary, None if unmasked else valid_BT, layout, num_last)
        if layout.inverse is not None:
            hidden, valid_BT = hidden[layout.inverse], valid_BT[layout.inverse]
            standardizer = Standardizer(
                standardizer.loc[layout.inverse], standardizer.scale[layout.inverse], arch.use_arcsinh
            )
            future = Future(*(x[layout.inverse] for x in future))
            naive = None if naive is None else naive.reordered(layout.inverse)
        z_BnX = self.output_patch_embedding(hidden[:, -num_output_patches:])
        z_BQH = z_BnX.unflatten(-1, (len(arch.quantiles), -1)).transpose(1, 2).flatten(2)
        if self.naive_mixture is not None and naive is not None:
            z_BQH = z_BQH + self.naive_mixture.mix(hidden[:, -num_output_patches:], naive)[:, None]

        loss = objective = None
        if future_target is not None:
            loss, objective = self._loss(z_BQH, future_target, future_target_mask, standardizer, future)
        return Chronos2Output(
            quantile_preds=standardizer.invert(z_BQH.transpose(0, 1)).transpose(0, 1),
            loss=loss,
            objective=objective,
            loc=standardizer.loc,
            scale=standardizer.scale,
            last_hidden_state=hidden if output_hidden_states else None,
            token_mask=valid_BT if output_hidden_states else None,
        )

    def _check(
        self,
        context: Tensor,
        group_ids: Tensor | None,
        covariates: Tensor | None,
        target: Tensor | None,
        horizon: int,
    ) -> None:
        if context.ndim != 2 or not context.numel():
            raise ValueError(f"context must be (rows, steps), one of each at least, got shape {tuple(context.shape)}.")
        num_rows = len(context)
        if group_ids is not None and tuple(group_ids.shape) != (num_rows,):
            raise ValueError(f"group_ids must hold one id for each of {num_rows} rows, got {tuple(group_ids.shape)}.")
        for name, x in (("future_covariates", covariates), ("future_target", target)):
            if x is not None and (x.ndim != 2 or len(x) != num_rows or x.shape[1] > horizon):
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)}; expected {num_rows} rows of at most {horizon} steps, the "
                    "num_output_patches of this forward."
                )

    def _future(
        self,
        covariates: Tensor | None,
        mask: Tensor | None,
        standardizer: Standardizer,
        horizon: int,
        layout: Layout,
    ) -> Future:
        """Known future values in model units, padded to the horizon, in the layout's order."""
        if covariates is None:
            nothing = standardizer.loc.new_zeros(1, 1).expand(len(standardizer.loc), horizon)
            return Future(nothing, nothing > 0)
        if mask is not None:
            if mask.shape != covariates.shape:
                raise ValueError(
                    f"future_covariates has shape {tuple(covariates.shape)}, its mask {tuple(mask.shape)}."
                )
            known = mask > 0
            if (known & covariates.isnan()).any():
                raise ValueError("future_covariates has NaN where future_covariates_mask says the value is known.")
        else:
            known = ~covariates.isnan()
        if layout.order is not None:
            covariates, known = covariates[layout.order], known[layout.order]
        value = standardizer.apply_where(known, covariates)
        return Future(pad_right_to(value, horizon, 0.0), pad_right_to(known, horizon, False))

    def _embed(self, value_BC: Tensor, observed_BC: Tensor, future: Future) -> tuple[Tensor, Tensor]:
        """Tokens [context N][REG][future n] (B, T, D), and which of them are valid, bool (B, T)."""
        arch = self.architecture
        patch = arch.input_patch_size
        observed = pad_left(observed_BC, patch, False)
        value = pad_left(value_BC, patch, 0.0)
        num_context, horizon = value.shape[1], future.value_BH.shape[1]
        step = torch.arange(-num_context, horizon, dtype=torch.float32, device=value.device) / arch.time_encoding_scale
        features_BT3P = torch.cat(
            [
                patches(step, patch).expand(len(value), -1, -1),
                patches(torch.cat([value, future.value_BH], 1), patch),
                patches(torch.cat([observed, future.mask_BH], 1), patch).float(),
            ],
            dim=-1,
        )
        tokens = self.input_patch_embedding(features_BT3P.to(self.shared.weight.dtype))
        num_patches = num_context // patch
        valid = patches(observed, patch).any(-1)
        always = valid.new_ones(1, 1).expand(len(valid), tokens.shape[1] - num_patches + arch.use_reg_token)
        valid = torch.cat([valid, always], 1)
        if arch.use_reg_token:
            reg = self.shared.weight[REG_TOKEN].expand(len(tokens), 1, -1)
            tokens = torch.cat([tokens[:, :num_patches], reg.to(tokens.dtype), tokens[:, num_patches:]], 1)
        return tokens, valid

    def _loss(
        self, z_BQH: Tensor, target: Tensor, mask: Tensor | None, standardizer: Standardizer, future: Future
    ) -> tuple[Tensor, Loss]:
        """The reference's scalar and the objective, both in model units."""
        horizon = z_BQH.shape[-1]
        observed = ~target.isnan() if mask is None else (mask > 0) & ~target.isnan()
        target = pad_right_to(standardizer.apply_where(observed, target), horizon, 0.0)
        observed = pad_right_to(observed, horizon, False) & ~future.mask_BH
        level_Q = to_device(np.array(self.architecture.quantiles, dtype=np.float32), z_BQH.device)
        loss_BH = pinball(z_BQH.float(), target, observed, level_Q)
        return loss_BH.sum() / loss_BH.numel(), reduce(loss_BH, observed, self.reduction)
