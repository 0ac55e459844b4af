"""Windows -> the keyword arguments of Time-MoE's forward, short rows packed.

Axes: R rows, L steps of a window, S steps of an input (S < L), H horizon steps, P packed rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from foreloom.data.stream.windows import Role, Windows
from foreloom.models.common.rows import last_observed, to_device

WORTH_IT = 0.6
"""Packed rows attend through a mask, which is slower: they pay off at this share of the padded steps and below."""


def batch(windows: Windows, device: torch.device) -> dict[str, Any]:
    """Every target row as one sequence, context and horizon together, each step the label of the one before it.

    Covariates are left out: the model is univariate. Rows begin with their first observed step, so padding stands at
    the right, where no step looks. A missing input repeats the last observed value; a missing label does not count, nor
    do those of the context where the windows are `horizon_only`. Rows without a label are left out, and rows much
    shorter than the longest are packed several into one, which changes no loss.
    """
    x_RL = np.concatenate([windows.context_RC, windows.future_RH], axis=1)[windows.role_R == Role.TARGET]
    observed_RL = ~np.isnan(x_RL)
    counts_RL = observed_RL.copy()
    if windows.horizon_only:
        counts_RL[:, : windows.context_RC.shape[1]] = False
    first_R = observed_RL.argmax(1)
    counts_RL[np.arange(len(x_RL)), first_R] = False  # nothing comes before it
    has_label_R = counts_RL.any(1)
    if not has_label_R.any():
        nothing = torch.zeros(1, 1, device=device)
        return {"input_ids": nothing, "labels": nothing, "loss_masks": nothing}

    steps = (x_RL[has_label_R], observed_RL[has_label_R], counts_RL[has_label_R])
    x_RL, observed_RL, counts_RL = (_from(first_R[has_label_R], array) for array in steps)
    num_steps_R = x_RL.shape[1] - 1 - counts_RL[:, ::-1].argmax(1)  # up to the step before the last label
    width = int(num_steps_R.max())
    arrays = (
        np.where(np.arange(width) < num_steps_R[:, None], last_observed(x_RL, observed_RL)[:, :width], np.float32(0)),
        np.where(counts_RL, x_RL, np.float32(0))[:, 1 : width + 1],
        counts_RL[:, 1 : width + 1].astype(np.float32),
    )
    names = ("input_ids", "labels", "loss_masks")
    packing = pack(num_steps_R, width)
    if packing is not None:
        arrays, names = lay_out(packing, num_steps_R, arrays), (*names, "segment_ids")
    return {name: to_device(array, device) for name, array in zip(names, arrays, strict=True)}


def _from(first_R: np.ndarray, x_RL: np.ndarray) -> np.ndarray:
    """Rows moved to the left, so that each begins with its step `first_R`; what is left free is 0."""
    step_RL = first_R[:, None] + np.arange(x_RL.shape[1])
    moved_RL = np.take_along_axis(x_RL, np.minimum(step_RL, x_RL.shape[1] - 1), axis=1)
    return np.where(step_RL < x_RL.shape[1], moved_RL, np.zeros((), x_RL.dtype))


class Packing(NamedTuple):
    """Where each row goes."""

    row_R: np.ndarray
    start_R: np.ndarray
    num_rows: int


def pack(length_R: np.ndarray, width: int) -> Packing | None:
    """Rows of `length_R` steps into rows of `width`, by first fit, longest first; None where it is not worth it."""
    row_R, start_R = np.zeros_like(length_R), np.zeros_like(length_R)
    used: list[int] = []
    for row in np.argsort(-length_R, kind="stable"):
        length = int(length_R[row])
        place = next((i for i, steps in enumerate(used) if steps + length <= width), len(used))
        if place == len(used):
            used.append(0)
        row_R[row], start_R[row] = place, used[place]
        used[place] += length
    return Packing(row_R, start_R, len(used)) if len(used) <= WORTH_IT * len(length_R) else None


def lay_out(packing: Packing, length_R: np.ndarray, arrays_RS: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Each array (R, S) packed to (P, S), zeros where nothing lies; and last the segments, int64 (P, S).

    A step's segment is the number of the row it came from, or R where nothing lies.
    """
    num_rows, width = len(length_R), arrays_RS[0].shape[1]
    from_R, from_S = np.nonzero(np.arange(width) < length_R[:, None])
    to_P, to_S = packing.row_R[from_R], packing.start_R[from_R] + from_S
    packed = []
    for array_RS in arrays_RS:
        packed_PS = np.zeros((packing.num_rows, width), dtype=array_RS.dtype)
        packed_PS[to_P, to_S] = array_RS[from_R, from_S]
        packed.append(packed_PS)
    segment_PS = np.full((packing.num_rows, width), num_rows, dtype=np.int64)
    segment_PS[to_P, to_S] = from_R
    return (*packed, segment_PS)
