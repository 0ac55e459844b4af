"""Windows -> the keyword arguments of Chronos-T5's forward.

Axes: R rows, L context steps, H horizon steps, S tokens of a sequence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.stream.windows import Role, Windows
from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.tokenizer import IGNORED, Tokenizer
from foreloom.models.common.rows import last_observed, to_device, without_leading_padding


def batch(module: nn.Module, windows: Windows, device: torch.device) -> dict[str, Any]:
    """Every target row as tokens, by the module's own tokenizer.

    Covariates are left out: the model is univariate. A row without an observed value before the cut, whose scale would
    mean nothing, or after it, has no label that counts; such rows are left out where others remain. ValueError for a
    horizon beyond the model's.
    """
    arch = Architecture.of(module)
    horizon = windows.future_RH.shape[1]
    if horizon > arch.prediction_length:
        raise ValueError(
            f"the windows have a horizon of {horizon} steps and the model forecasts {arch.prediction_length} at once; "
            "shorten data.prediction_length or raise model.prediction_length."
        )
    is_target_R = windows.role_R == Role.TARGET
    context_RL, future_RH = windows.context_RC[is_target_R], windows.future_RH[is_target_R]
    is_seen_R = ~np.isnan(context_RL).all(1)
    counts_R = is_seen_R & ~np.isnan(future_RH).all(1)
    future_RH = np.where(is_seen_R[:, None], future_RH, np.float32("nan"))
    kept = counts_R if counts_R.any() else slice(0, 1)
    context_RL, future_RH = without_leading_padding(context_RL[kept]), future_RH[kept]
    tokenizer = module.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    if arch.model_type == "causal":
        horizon_only = windows.horizon_only or not counts_R.any()
        arguments = _sequences(tokenizer, context_RL, future_RH, horizon_only=horizon_only)
    else:
        arguments = _pairs(tokenizer, context_RL, future_RH)
    return {name: to_device(tensor.numpy(), device) for name, tensor in arguments.items()}


def _pairs(tokenizer: Tokenizer, context_RL: np.ndarray, future_RH: np.ndarray) -> dict[str, Tensor]:
    """For an encoder and a decoder; missing steps of the context are hidden."""
    context = tokenizer.encode_context(torch.from_numpy(context_RL))
    labels = tokenizer.encode_labels(torch.from_numpy(future_RH), context.scale_R)
    arguments = {"input_ids": context.id_RS, "labels": labels}
    return arguments if context.mask_RS.all() else {**arguments, "attention_mask": context.mask_RS}


def _sequences(
    tokenizer: Tokenizer, context_RL: np.ndarray, future_RH: np.ndarray, *, horizon_only: bool
) -> dict[str, Tensor]:
    """For a decoder alone: context and horizon in a row, padding moved to the right, where nothing looks.

    A missing step reads as the last one observed before it, and does not count as a label.
    """
    num_context = context_RL.shape[1]
    x_RS = np.concatenate([context_RL, future_RH], 1)
    observed_RS = ~np.isnan(x_RS)
    filled_RS = last_observed(x_RS, observed_RS)
    context = tokenizer.encode_context(torch.from_numpy(filled_RS[:, :num_context]))
    future = tokenizer.encode_labels(torch.from_numpy(filled_RS[:, num_context:]), context.scale_R)
    id_RS = torch.cat([context.id_RS, future], 1)
    counts_RS = torch.zeros_like(id_RS, dtype=torch.bool)
    counts_RS[:, : x_RS.shape[1]] = torch.from_numpy(observed_RS)
    counts_RS[:, x_RS.shape[1] :] = (future[:, -1:] != IGNORED) & counts_RS[:, num_context:].any(1, keepdim=True)
    if horizon_only:
        counts_RS[:, :num_context] = False
    begin_R = torch.from_numpy(np.where(observed_RS.any(1), observed_RS.argmax(1), 0))
    place_RS = begin_R[:, None] + torch.arange(id_RS.shape[1])
    id_RS, counts_RS = (x.gather(1, place_RS.clamp(max=x.shape[1] - 1)) for x in (id_RS, counts_RS))
    is_there_RS = (place_RS < id_RS.shape[1]) & (id_RS != IGNORED)
    pad = tokenizer.pad_token_id
    return {
        "input_ids": torch.where(is_there_RS, id_RS, pad),
        "labels": torch.where(is_there_RS & counts_RS, id_RS, IGNORED),
    }
