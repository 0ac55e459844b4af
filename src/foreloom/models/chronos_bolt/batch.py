"""Windows -> the keyword arguments of Chronos-Bolt's forward.

Axes: R rows, C context steps, H horizon steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from foreloom.data.stream.windows import Role, Windows
from foreloom.models.common.rows import to_device, without_leading_padding


def batch(windows: Windows, device: torch.device) -> dict[str, Any]:
    """Every target row, its context and what follows.

    Covariates are left out: the model is univariate. So are rows that count nothing, where others remain: those without
    a target, and those whose context has no spread (nothing observed, or one value over and over), which is the unit
    that the target is measured in: a change after it would be 100,000 of them and drown the other rows.
    """
    is_target_R = windows.role_R == Role.TARGET
    context_RC, future_RH = windows.context_RC[is_target_R], windows.future_RH[is_target_R]
    has_spread_R = np.fmax.reduce(context_RC, axis=1) > np.fmin.reduce(context_RC, axis=1)
    counts_R = has_spread_R & ~np.isnan(future_RH).all(1)
    kept = counts_R if counts_R.any() else slice(0, 1)
    future_RH = np.where(has_spread_R[:, None], future_RH, np.float32("nan"))[kept]
    context_RC = without_leading_padding(context_RC[kept])
    return {
        "context": to_device(context_RC, device),
        "target": to_device(future_RH, device),
        "all_observed": not np.isnan(context_RC).any(),
    }
