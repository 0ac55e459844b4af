"""The loss that keeps the use of a language model's experts even, over the global batch, and what is counted for it.

Axes: L layers with experts, N tokens, E experts, K experts a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foreloom.models.common.text import TextOutput
from foreloom.objectives.loss import Loss
from foreloom.objectives.router import expert_load, share_balance


def survey(logits: Sequence[Tensor], top_k: int, is_text_N: Tensor, num_labels: Tensor) -> dict[str, Tensor]:
    """What of a part of the global batch the loss of another part has to know, additive: tokens by layer and expert,
    tokens that were routed, labels. `logits`: (N, E) a layer."""
    expert_LNK = torch.stack([one.detach().topk(top_k, dim=-1).indices for one in logits])
    return {
        "expert_load": expert_load(expert_LNK, logits[0].shape[-1], is_text_N),
        "routed": is_text_N.sum(),
        "labels": num_labels,
    }


def balance(logits: Sequence[Tensor], top_k: int, is_text_N: Tensor, whole: Mapping[str, Tensor]) -> Tensor:
    """This part's share of E sum_e f_e P_e, which is K at even use: f_e are the choices of expert e a token, P_e its
    mean probability, over the tokens of all layers together (Fedus et al. 2021, eq. 4, as transformers pools it)."""
    probability_E = sum(torch.where(is_text_N[:, None], one.float().softmax(-1), 0.0).sum(0) for one in logits)
    assert isinstance(probability_E, Tensor)
    return top_k * share_balance(probability_E, whole["expert_load"].sum(0).float(), len(logits) * whole["routed"])


def with_balance(
    output: TextOutput, logits: Sequence[Tensor], top_k: int, is_text_N: Tensor, weight: float,
    global_tally: Mapping[str, Tensor] | None,
) -> TextOutput:  # fmt: skip
    """The output with the loss in it, `weight` times for each label, and in its tally."""
    here = survey(logits, top_k, is_text_N, output.objective.count)
    whole = here if global_tally is None else global_tally
    loss = balance(logits, top_k, is_text_N, whole)
    num_labels = whole["labels"].float()
    objective = Loss(output.objective.sum + weight * num_labels * loss, output.objective.count)
    entry = Loss(loss * num_labels, output.objective.count).entry
    tally: dict[str, Any] = {**output.tally, "aux_loss": entry, "expert_load": here["expert_load"]}
    return output._replace(loss=objective.mean, objective=objective, tally=tally)
