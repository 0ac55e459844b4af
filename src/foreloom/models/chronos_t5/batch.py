"""Windows -> the keyword arguments of Chronos-T5's forward.

Axes: R rows, L context steps, H horizon steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.windows import Role, Windows
from foreloom.models.chronos_t5.architecture import architecture_of_module
from foreloom.models.chronos_t5.tokenizer import Tokenizer
from foreloom.models.common.rows import without_leading_padding
from foreloom.models.common.transfer import to_device


def batch(module: nn.Module, windows: Windows, device: torch.device) -> dict[str, Any]:
    """Every target row as a sequence of tokens, by the module's own tokenizer.

    Covariates are left out: the model is univariate. A row without an observed value before the cut, whose scale would
    mean nothing, or after it, has no label that counts; such rows are left out where others remain. ValueError for a
    horizon beyond the model's.
    """
    arch = architecture_of_module(module)
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
    context = tokenizer.encode_context(torch.from_numpy(context_RL))
    label_RH = tokenizer.encode_labels(torch.from_numpy(future_RH), context.scale_R)
    arguments = {"input_ids": context.id_RS, "labels": label_RH}
    if not context.mask_RS.all():
        arguments["attention_mask"] = context.mask_RS
    return {name: _to_device(tensor, device) for name, tensor in arguments.items()}


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    return to_device(tensor.numpy(), device)
