"""Windows -> the keyword arguments of Chronos-2's forward.

Axes: R rows, C context steps, H horizon steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from foreloom.data.stream.windows import Role, Windows
from foreloom.models.chronos2.encoder import layout_of
from foreloom.models.common.rows import to_device, without_leading_padding


def batch(windows: Windows, device: torch.device) -> dict[str, Any]:
    """What forward takes, on the device.

    Targets are the futures of target rows, covariates those of known-future rows: no row sees its own target, and past
    covariates have neither. Steps before the first observed one of the whole batch are dropped, which changes nothing.
    """
    context_RC = without_leading_padding(windows.context_RC)
    future_RH, role_R = windows.future_RH, windows.role_R[:, None]
    arguments: dict[str, Any] = {
        "context": to_device(context_RC, device),
        "future_target": to_device(np.where(role_R == Role.TARGET, future_RH, np.float32("nan")), device),
        "layout": layout_of(windows.group_R, windows.num_rows, device, all_observed=not np.isnan(context_RC).any()),
    }
    if (role_R == Role.FUTURE).any():
        known_RH = np.where(role_R == Role.FUTURE, future_RH, np.float32("nan"))
        arguments["future_covariates"] = to_device(known_RH, device)
    return arguments
