"""Windows made of plain arrays."""

from __future__ import annotations

import numpy as np

from foreloom.data.stream.windows import Role, Windows


def windows_of(x_RL: np.ndarray, horizon: int = 8, **fields) -> Windows:
    """Rows of single series; the last `horizon` steps are the future."""
    num_rows, cut = len(x_RL), x_RL.shape[1] - horizon
    number_R = np.arange(num_rows)
    plain = {"role_R": np.full(num_rows, Role.TARGET, np.int8), "group_R": number_R, "sample_R": number_R}
    plain |= {"source_R": np.zeros(num_rows, np.int32), "item_R": number_R}
    return Windows(context_RC=x_RL[:, :cut], future_RH=x_RL[:, cut:], **(plain | fields))
