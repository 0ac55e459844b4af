"""What Chronos-T5 is trained for: the tokens of the horizon, and a router that uses all of its experts.

Axes: B samples, T tokens of the forecast, V vocabulary, E experts, K experts a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.experts import SampleRouting, moment_sums
from foreloom.models.family import Tally
from foreloom.objectives.loss import Loss, cross_entropy
from foreloom.objectives.router import expert_load, router_z_loss, share_balance


class Losses(NamedTuple):
    """The parts of the objective and their sum."""

    loss: Tensor
    """Scalar: cross entropy + load_balancing_weight * balance (+ z-loss)."""
    objective: Loss
    load_loss: Tensor | None
    """Scalar, unscaled: this micro-batch's part of the global batch's balance loss, which is 1 at even use."""
    tally: Tally


class GlobalBatch(NamedTuple):
    """What the balance loss has to know of the whole global batch."""

    load_E: Tensor
    """Samples that each expert gets."""
    num_samples: Tensor
    num_labels: Tensor

    @classmethod
    def of(cls, tally: Mapping[str, Tensor]) -> GlobalBatch:
        return cls(tally["expert_load"][0].float(), tally["samples"].float(), tally["labels"].float())


def plain_losses(logits_BTV: Tensor, label_BT: Tensor) -> Losses:
    """Without experts: the cross entropy alone."""
    loss = cross_entropy(logits_BTV, label_BT)
    return Losses(loss.mean, loss, None, {})


def mixture_losses(
    logits_BTV: Tensor,
    label_BT: Tensor,
    routing: SampleRouting,
    arch: Architecture,
    whole: GlobalBatch | None,
    *,
    balances: bool,
    z_loss_factor: float,
) -> Losses:
    """With experts. `whole` is the global batch, where this is only a part of it. Without `balances`, as outside
    training, the router's losses are told and not counted: what is scored is the forecast.

    Balance: E * sum_e f_e P_e, f_e the share of the choices that fell on expert e, P_e its mean probability, both over
    the samples of the global batch (Fedus et al. 2021, eq. 4; 1 at even use). f_e carries no gradient, so that with f
    of the whole the loss is a sum over samples, and how the batch is cut changes nothing.
    """
    forecast = cross_entropy(logits_BTV, label_BT)
    has_label_B = (label_BT >= 0).any(-1)
    survey = survey_tally(routing, label_BT, arch)
    whole = GlobalBatch.of(survey) if whole is None else whole
    probability_BE = torch.where(has_label_B[:, None], routing.logits_BE.softmax(-1), 0.0)
    load_loss = share_balance(probability_BE.sum(0), whole.load_E, whole.num_samples)
    tally = {
        "ce_loss": forecast.entry,
        "load_loss": Loss(load_loss * whole.num_labels, forecast.count).entry,
        "expert_load": survey["expert_load"],
        "router_input": moment_sums(routing.pooled_BD, has_label_B),
        "router_logits": moment_sums(routing.logits_BE, has_label_B),
    }
    router_loss = arch.load_balancing_weight * balances * load_loss
    if z_loss_factor:
        share = has_label_B.sum() / whole.num_samples.clamp(min=1)
        z_loss = router_z_loss(routing.logits_BE[None], has_label_B) * share
        router_loss = router_loss + z_loss_factor * balances * z_loss
        tally["router_z_loss"] = Loss(z_loss * whole.num_labels, forecast.count).entry
    objective = Loss(forecast.sum + router_loss * whole.num_labels, forecast.count)
    tally["total_loss"] = objective.entry
    return Losses(forecast.mean + router_loss, objective, load_loss, tally)


def survey_tally(routing: SampleRouting, label_BT: Tensor, arch: Architecture) -> dict[str, Tensor]:
    """Additive: samples with a label, their labels, and the samples of each expert (1, E)."""
    has_label_B = (label_BT >= 0).any(-1)
    return {
        "expert_load": expert_load(routing.expert_BK[None], arch.num_experts, has_label_B),
        "samples": has_label_B.sum(),
        "labels": (label_BT >= 0).sum(),
    }
