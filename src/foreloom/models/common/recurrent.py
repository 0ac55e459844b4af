"""What recurrent families of text share: rows that know no borders, and which of them go on from what state.

Axes: R rows, T tokens, N = R T, P pieces of documents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreloom.models.common.text import NO_TARGET, TextOutput, text_batch


def recurrent_batch(tokens: Any, device: torch.device) -> dict[str, Tensor]:
    """`text_batch`, and `resets` (R,) where rows are of streams; of documents that share rows, each piece is a row of
    its own, as a state knows no borders."""
    tensors = text_batch(tokens if tokens.position_RT is None else _apart(tokens), device)
    if tokens.resets_R is not None:
        tensors["resets"] = torch.from_numpy(tokens.resets_R).to(device)
    return tensors


def _apart(tokens: Any) -> Any:
    begins_RT = tokens.position_RT == 0
    begins_RT[:, 0] = True
    begin_P = np.flatnonzero(begins_RT)
    end_P = np.r_[begin_P[1:], begins_RT.size]
    token_N, target_N = tokens.token_RT.ravel(), tokens.target_RT.ravel()
    counts_P = np.add.reduceat(target_N != NO_TARGET, begin_P)
    kept = np.flatnonzero(counts_P) if counts_P.any() else np.array([0])  # what fills up a row counts nothing
    begin_P, length_P = begin_P[kept], (end_P - begin_P)[kept]
    step_T = np.arange(length_P.max())
    is_there_PT = step_T < length_P[:, None]
    place_PT = np.where(is_there_PT, begin_P[:, None] + step_T, 0)
    return dataclasses.replace(
        tokens,
        token_RT=np.where(is_there_PT, token_N[place_PT], 0),
        target_RT=np.where(is_there_PT, target_N[place_PT], NO_TARGET),
        position_RT=None,
    )


def state_of_rows(
    beginning: Mapping[str, Tensor], carry: Mapping[str, Tensor] | None, resets: Tensor | None
) -> Mapping[str, Tensor]:
    """What rows go on from, (R, ...) each: the `carry` where `resets` (R,) is there and False, else the beginning."""
    if carry is None or resets is None:
        return beginning
    begins = {name: resets.view(-1, *[1] * (value.ndim - 1)) for name, value in beginning.items()}
    return {name: torch.where(begins[name], value, carry[name]) for name, value in beginning.items()}


def going_on(
    output: TextOutput,
    after: Mapping[str, Tensor],
    labels: Tensor,
    carry: Mapping[str, Tensor] | None,
    resets: Tensor | None,
) -> TextOutput:
    """The output with what rows of streams leave behind: what comes `after` them, in float32 and without gradients.

    Its tally counts the rows that went on from a carried state, and all rows (that have labels).
    """
    counts_R = (labels != NO_TARGET).any(1)
    carried_R = counts_R & ~resets if carry is not None and resets is not None else torch.zeros_like(counts_R)
    tally = {**output.tally, "carried_rows": torch.stack([carried_R.sum(), counts_R.sum()]).float()}
    if resets is None and carry is not None:
        after = carry
    return output._replace(tally=tally, carry={name: value.detach().float() for name, value in after.items()})
