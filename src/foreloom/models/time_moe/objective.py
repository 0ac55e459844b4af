"""What Time-MoE is trained for: forecasts at every horizon, and routers that keep their experts busy.

Axes: B rows, S positions, X all horizons side by side, L layers, N = B*S tokens, E experts, K experts a token.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from foreloom.models.common.moe import Routing
from foreloom.models.family import Tally
from foreloom.models.time_moe.architecture import Architecture
from foreloom.objectives.huber import PositionSums, huber_by_position, mean_of_batch, mean_of_rows
from foreloom.objectives.loss import Loss
from foreloom.objectives.router import balance_loss, expert_load, router_z_loss

Protocol = Literal["standard", "reference"]
"""standard: padding is neither a target nor a token, and rows weigh by their labels. reference: the official code's
formulas, in which zeros beyond a row's end are targets unless loss_masks are given, padding counts in the routers'
statistics unless an attention_mask is given, and micro-batches weigh the same whatever they hold."""


class Targets(NamedTuple):
    """What a forward is scored on."""

    label_BS: Tensor
    """The step after each position."""
    loss_mask_BS: Tensor | None
    """1 where the label counts."""
    attention_mask_BS: Tensor | None
    """1 where the position is a step of the series."""
    segment_BS: Tensor | None
    """Of packed rows: the segment's number, counted over the whole batch."""


class Losses(NamedTuple):
    """The parts of the objective and their sum."""

    loss: Tensor
    """Scalar: forecast loss + factor * aux_loss (+ z-loss)."""
    objective: Loss
    aux_loss: Tensor | None
    """Scalar, unscaled, the number of experts a token where they are evenly used; None for a dense model."""
    tally: Tally


def losses_of(
    prediction_BSX: Tensor,
    targets: Targets,
    routing: Routing | None,
    arch: Architecture,
    *,
    protocol: Protocol,
    z_loss_factor: float,
) -> Losses:
    """The objective by either protocol. `routing` holds all layers: logits (L, N, E), experts (L, N, K).

    In the standard protocol the forecast loss is a sum over rows, which does not depend on how a batch is cut into
    micro-batches. The routers' losses are statistics of the micro-batch, as published, and weigh as its labels do.
    """
    if protocol == "reference":
        forecast, keep_BS = _reference_forecast(prediction_BSX, targets, arch)
    else:
        forecast, keep_BS = _standard_forecast(prediction_BSX, targets, arch)
    tally = {"forecast_loss": _entry(forecast.sum, forecast.count)}
    if routing is None:
        return Losses(forecast.mean, forecast, None, tally)
    keep_N = None if keep_BS is None else keep_BS.flatten()
    aux_loss = balance_loss(routing.logits_NE, routing.expert_NK, keep_N)
    router_loss = arch.router_aux_loss_factor * aux_loss
    tally["aux_loss"] = _entry(aux_loss * forecast.count, forecast.count)
    tally["expert_load"] = expert_load(routing.expert_NK, arch.num_experts, keep_N)
    if z_loss_factor:
        z_loss = router_z_loss(routing.logits_NE, keep_N)
        router_loss = router_loss + z_loss_factor * z_loss
        tally["router_z_loss"] = _entry(z_loss * forecast.count, forecast.count)
    objective = Loss(forecast.sum + forecast.count * router_loss, forecast.count)
    return Losses(forecast.mean + router_loss, objective, aux_loss, tally)


def _standard_forecast(prediction_BSX: Tensor, targets: Targets, arch: Architecture) -> tuple[Loss, Tensor]:
    """The sum over rows, and which positions are steps of a series that some counted label follows."""
    label_BS, mask_BS, attention_mask_BS, segment_BS = targets
    mask_BS = torch.ones_like(label_BS) if mask_BS is None else mask_BS.float()
    if attention_mask_BS is not None:
        mask_BS = mask_BS * (attention_mask_BS > 0)
    terms = huber_by_position(prediction_BSX, label_BS, mask_BS, arch.horizon_lengths, segment_BS=segment_BS)
    keep_BS = mask_BS.flip(1).cumsum(1).flip(1) > 0
    if attention_mask_BS is not None:
        # What the model says of padding is no forecast.
        keep_BS = keep_BS & (attention_mask_BS > 0)
        terms = PositionSums(torch.where(keep_BS, terms.sum_PBS, 0.0), terms.count_PBS * keep_BS)
    return mean_of_rows(terms, mask_BS, segment_BS), keep_BS


def _reference_forecast(prediction_BSX: Tensor, targets: Targets, arch: Architecture) -> tuple[Loss, Tensor | None]:
    """The mean over the batch with a count of 1 (0 without a single target), and the attention mask."""
    label_BS, mask_BS, attention_mask_BS, segment_BS = targets
    without_mask = mask_BS is None
    mask_BS = torch.ones_like(label_BS) if without_mask else mask_BS
    terms = huber_by_position(
        prediction_BSX, label_BS, mask_BS, arch.horizon_lengths, segment_BS=segment_BS, counts_tail=without_mask
    )
    count = (mask_BS != 0).any().float()
    keep_BS = None if attention_mask_BS is None else attention_mask_BS > 0
    return Loss(mean_of_batch(terms), count), keep_BS


def _entry(total: Tensor, count: Tensor) -> Tensor:
    return torch.stack([total, count]).detach()
