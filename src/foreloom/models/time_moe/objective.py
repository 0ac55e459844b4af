"""What Time-MoE is trained for: forecasts at every horizon, and routers that keep their experts busy.

Axes: B rows, S positions, P heads, h horizon of one head, X all horizons side by side, G segments (sequences packed
into rows; without packing every row is one), L layers, N = B*S tokens, E experts, K experts a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from foreloom.models.common.moe import Routing
from foreloom.models.family import Tally
from foreloom.models.time_moe.architecture import Architecture, Protocol
from foreloom.objectives.loss import Loss
from foreloom.objectives.router import balance_loss, expert_load, router_z_loss

HUBER_DELTA = 2.0
"""Error from which on the loss is linear, as Time-MoE was trained."""


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
    tally = {"forecast_loss": forecast.entry}
    if routing is None:
        return Losses(forecast.mean, forecast, None, tally)
    keep_N = None if keep_BS is None else keep_BS.flatten()
    aux_loss = balance_loss(routing.logits_NE, routing.expert_NK, keep_N)
    router_loss = arch.router_aux_loss_factor * aux_loss
    tally["aux_loss"] = Loss(aux_loss * forecast.count, forecast.count).entry
    tally["expert_load"] = expert_load(routing.expert_NK, arch.num_experts, keep_N)
    if z_loss_factor:
        z_loss = router_z_loss(routing.logits_NE, keep_N)
        router_loss = router_loss + z_loss_factor * z_loss
        tally["router_z_loss"] = Loss(z_loss * forecast.count, forecast.count).entry
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


class PositionSums(NamedTuple):
    """What each position adds to the loss of each head."""

    sum_PBS: Tensor
    """Huber loss summed over the steps of the head's horizon that count."""
    count_PBS: Tensor
    """How many those are; no gradient."""


def huber_by_position(
    prediction_BSX: Tensor,
    label_BS: Tensor,
    mask_BS: Tensor,
    horizon_lengths: Sequence[int],
    *,
    segment_BS: Tensor | None = None,
    counts_tail: bool = False,
) -> PositionSums:
    """0.5 e^2 up to |e| = 2, then 2 (|e| - 1) (Huber 1964; Shi et al. 2024, Time-MoE, eq. 8), summed over horizons.

    The head of horizon h at position t forecasts labels[t : t + h], a label each where the mask is not 0 and the
    segment that of position t. Beyond the row's end lie no labels; `counts_tail` takes zeros for them, which count.
    Labels under a mask of 0 are not read.
    """
    longest = max(horizon_lengths)
    # Windows of labels are views of one padded row; nothing of size (B, S, h) is copied for them.
    ahead = lambda x_BS, filler: F.pad(x_BS, (0, longest - 1), value=filler).unfold(1, longest, 1)
    label_BSh = ahead(torch.where(mask_BS != 0, label_BS, 0.0).float(), 0.0)
    weight_BSh = ahead(mask_BS.float(), float(counts_tail))
    if segment_BS is not None:
        weight_BSh = weight_BSh * (ahead(segment_BS, -1) == segment_BS[..., None])
    sums, counts = [], []
    predictions = prediction_BSX.float().split(list(horizon_lengths), dim=-1)
    for horizon, prediction_BSh in zip(horizon_lengths, predictions, strict=True):
        weight = weight_BSh[..., :horizon]
        loss = F.huber_loss(prediction_BSh, label_BSh[..., :horizon], reduction="none", delta=HUBER_DELTA)
        sums.append((loss * weight).sum(-1))
        counts.append(weight.sum(-1))
    return PositionSums(torch.stack(sums), torch.stack(counts))


def mean_of_rows(terms: PositionSums, num_labels_BS: Tensor, segment_BS: Tensor | None = None) -> Loss:
    """Each row's loss, the mean over heads of the head's mean, weighted by the row's number of labels; and their sum.

    A row's part depends on that row alone, so the sum does not depend on how a batch is cut or packed. Where all rows
    have equally many labels, `sum / count` is the loss as published, which divides by one count for the whole batch.
    `num_labels_BS` is 1 at positions whose next step is a label, else 0. `segment_BS` (0 to at most B*S - 1) names the
    rows that are packed.
    """
    sum_PG, count_PG, num_labels_G = (
        _by_segment(x, segment_BS) for x in (terms.sum_PBS, terms.count_PBS, num_labels_BS.float())
    )
    mean_G = (sum_PG / count_PG.clamp(min=1)).mean(0)
    return Loss((mean_G * num_labels_G).sum(), num_labels_G.sum())


def mean_of_batch(terms: PositionSums) -> Tensor:
    """The loss of the official code: one ratio a head over the whole batch, then the mean over heads."""
    return (terms.sum_PBS.sum((1, 2)) / terms.count_PBS.sum((1, 2)).clamp(min=1)).mean()


def _by_segment(x_BS: Tensor, segment_BS: Tensor | None) -> Tensor:
    """Sums over positions (leading axes are free): by row, or by segment, of which there are B*S at most."""
    if segment_BS is None:
        return x_BS.sum(-1)
    x_N = x_BS.flatten(-2)
    return torch.zeros_like(x_N).index_add(-1, segment_BS.flatten(), x_N)
